"""What the cases are written in: a store, its clock, and calls that go by a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from everloop._core.calls import Event, State
from everloop._core.clock import ManualClock
from everloop._core.records import (
    Added,
    Lane,
    Leased,
    NewCall,
    Outcome,
    Parent,
    SessionInfo,
    Snapshot,
    Turn,
    TurnAnswer,
)
from everloop.store.protocol import Store
from everloop.testing.conformance.expect import holds, same

SECOND = 1_000_000
MINUTE = 60 * SECOND
APP = "conformance"


def uuid(number: int) -> str:
    """Return the `number`-th of a fixed series of ids."""
    return f"{number:08x}-0000-7000-8000-000000000000"


class Scene:
    """A store under test.

    A call goes by its label; unless a case says otherwise, its function has the label's name too, so
    that `take` can lease exactly this one.
    """

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self._ids: dict[str, str] = {}
        self._lanes: dict[str, Lane] = {}

    # -- names ------------------------------------------------------------------------------------

    def id(self, label: str) -> str:
        """Return the id of the call with this label."""
        return self._ids.setdefault(label, uuid(len(self._ids) + 1))

    def ids(self, *labels: str) -> list[str]:
        return [self.id(label) for label in labels]

    def label(self, id: str) -> str:
        """Return the label of the call with this id."""
        return {known: label for label, known in self._ids.items()}[id]

    def call(
        self, label: str, fn: str = "", *, app: str = APP, queue: str = "default", **rest: Any
    ) -> NewCall:
        """Make a call to add."""
        lane = self._lanes[label] = Lane(app, queue, fn or label)
        fields: dict[str, Any] = {"id": self.id(label), "lane": lane, "args": b"j" + label.encode(), **rest}
        return NewCall(**fields)

    # -- sessions ---------------------------------------------------------------------------------

    async def session(
        self, kind: Literal["client", "worker"] = "worker", *, lease: int = MINUTE, lanes: Sequence[Lane] = ()
    ) -> int:
        info = SessionInfo(app=APP, kind=kind, host="here", pid=1, lanes=tuple(lanes))
        return await self.store.open_session(info, lease)

    async def crash(self, session: int) -> None:
        """Let a session's time run out, and reap it; others are kept alive by the caller."""
        await self.store.renew(session, SECOND)
        self.clock.advance(1)
        same(await self.store.reap(), 1, "the number of reaped sessions")

    # -- verbs ------------------------------------------------------------------------------------

    async def add(self, *calls: NewCall, session: int | None = None) -> list[Added]:
        return await self.store.add(session, calls)

    async def put(self, label: str, fn: str = "", *, session: int | None = None, **rest: Any) -> str:
        """Add one call that must be new, and return its id."""
        call = self.call(label, fn, **rest)
        same(await self.store.add(session, [call]), [Added(call.id)], f"adding {label!r}")
        return call.id

    async def lease(
        self, session: int, *fns: str, room: int = 100, roots: bool = True, queue: str = "default"
    ) -> list[Leased]:
        """Lease from the lanes of these functions."""
        lanes = tuple(Lane(APP, queue, fn) for fn in fns)
        answer = await self.store.turn(session, Turn(room=room, lanes=lanes, roots=roots))
        return answer.leased

    async def take(self, session: int, label: str) -> Leased:
        """Lease the call with this label, which must be ready."""
        turn = Turn(room=1, lanes=(self._lanes[label],))
        leased = (await self.store.turn(session, turn)).leased
        same([lease.id for lease in leased], [self.id(label)], f"leasing {label!r}")
        return leased[0]

    async def start(self, worker: int, label: str, **rest: Any) -> Leased:
        """Add a call and lease it."""
        await self.put(label, **rest)
        return await self.take(worker, label)

    async def start_child(self, worker: int, parent: Leased, label: str, **rest: Any) -> Leased:
        await self.put_child(parent, label, **rest)
        return await self.take(worker, label)

    async def put_child(self, parent: Leased, label: str, fn: str = "", **rest: Any) -> str:
        """Add an owned child of a leased call, which must be new."""
        fields: dict[str, Any] = {"parent": Parent(parent.id, parent.fence), "owned": True, **rest}
        return await self.put(label, fn, **fields)

    async def settle(
        self,
        session: int,
        lease: Leased,
        event: Event = Event.SUCCEED,
        *,
        value: bytes | None = None,
        error: bytes | None = None,
        delay: int = 0,
    ) -> bool:
        """Settle one lease, and return whether it was the current one."""
        outcome = Outcome(lease.id, lease.fence, event, value=value, error=error, delay=delay)
        answer = await self.store.turn(session, Turn(outcomes=[outcome]))
        return bool(answer.settled[0])

    async def end(self, session: int, label: str) -> None:
        """Lease a ready call and let it succeed."""
        holds(await self.settle(session, await self.take(session, label)), f"{label!r} was settled")

    async def inbox(self, session: int) -> TurnAnswer:
        """Take what the session is told."""
        return await self.store.turn(session, Turn())

    async def told(self, session: int) -> list[str]:
        """Take the labels of the calls whose end the session is told, sorted."""
        return sorted(self.label(ended.id) for ended in (await self.inbox(session)).ended)

    # -- looks ------------------------------------------------------------------------------------

    async def see(self, label: str) -> Snapshot:
        """Return what is stored of the call with this label."""
        (snapshot,) = await self.store.get([self.id(label)])
        if snapshot is None:
            raise AssertionError(f"no call {label!r} is stored")
        return snapshot

    async def state(self, label: str) -> State:
        return (await self.see(label)).state

    async def states(self, *labels: str) -> list[State]:
        return [await self.state(label) for label in labels]

    async def missing(self, label: str) -> bool:
        """Tell whether nothing is stored under this label."""
        return await self.store.get([self.id(label)]) == [None]
