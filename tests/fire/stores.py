"""Calls and sessions for tests that speak to a store by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from everloop._core.calls import State
from everloop._core.records import Ended, Lane, Leased, NewCall, SessionInfo, Snapshot, Turn
from everloop.store.protocol import Store

LANE = Lane("a", "default", "work")
WORKER = SessionInfo(app="a", kind="worker", host="here", pid=1, lanes=(LANE,))
CLIENT = SessionInfo(app="a", kind="client", host="here", pid=2)
MINUTE = 60_000_000


def call(number: int, **rest: Any) -> NewCall:
    """Return a call with an id that is made of its number."""
    return NewCall(id=f"{number:08x}-0000-7000-8000-000000000000", **{"lane": LANE, "args": b"j", **rest})


async def leased(store: Store, session: int, room: int = 100) -> list[Leased]:
    """Take leases for a session."""
    return (await store.turn(session, Turn(lanes=(LANE,), room=room))).leased


async def told(store: Store, session: int) -> list[Ended]:
    """Take what a session has been told."""
    return (await store.turn(session, Turn())).ended


async def stored(store: Store, calls: Sequence[NewCall]) -> list[Snapshot]:
    """Return what is stored of the calls, which must be all there is."""
    found = [snapshot for snapshot in await store.get([call.id for call in calls]) if snapshot is not None]
    assert len(found) == len(calls) == sum((await store.counts()).values())
    return found


async def states(store: Store, calls: Sequence[NewCall]) -> list[State]:
    """Return their states."""
    return [snapshot.state for snapshot in await stored(store, calls)]
