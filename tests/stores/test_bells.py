"""The bells of SQLite: who is woken by a commit in another process's store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from everloop._core.calls import Event
from everloop._core.records import Lane, NewCall, Outcome, SessionInfo, Turn
from everloop.store.sql.store import SqliteStore
from everloop.testing.conformance.scene import MINUTE, uuid

LANE = Lane("a", "default", "work")
CALL = NewCall(id=uuid(1), lane=LANE, args=b"j")
LIMIT_S = 10.0


class Listening:
    """A store with a session that listens."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.rung = asyncio.Event()
        self.session = 0

    async def open(self, kind: str) -> Listening:
        await self.store.open()
        info = SessionInfo(app="a", kind="worker" if kind == "worker" else "client", host="here", pid=1)
        self.session = await self.store.open_session(info, MINUTE)
        self.stop = self.store.listen(self.session, self.rung.set)
        return self

    async def is_rung(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            await self.rung.wait()
        self.rung.clear()


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Listening, Listening]]:
    """A worker and a client, each with a store of its own on one file."""
    worker = await Listening(SqliteStore(tmp_path / "store.db")).open("worker")
    client = await Listening(SqliteStore(tmp_path / "store.db")).open("client")
    yield worker, client
    for each in (worker, client):
        each.stop()
        await each.store.close()


async def test_a_worker_is_rung_when_calls_are_ready(two: tuple[Listening, Listening]) -> None:
    worker, client = two

    await client.store.turn(client.session, Turn(adds=[CALL]))
    await worker.is_rung()

    assert not client.rung.is_set()


async def test_a_worker_is_rung_for_a_call_that_is_due_before_it_would_look_by_itself(
    two: tuple[Listening, Listening],
) -> None:
    worker, client = two
    late = NewCall(id=uuid(2), lane=LANE, args=b"j", delay=MINUTE)
    await client.store.turn(client.session, Turn(adds=[late]))
    assert not worker.rung.is_set()
    await client.store.turn(client.session, Turn(adds=[replace(CALL, delay=500_000)]))
    await worker.is_rung()

    answer = await worker.store.turn(worker.session, Turn(lanes=(LANE,), room=1))
    assert answer.leased == []
    assert answer.next_due is not None
    assert answer.next_due < worker.store.now() + 500_000


async def test_who_waits_is_rung_when_its_call_has_ended(two: tuple[Listening, Listening]) -> None:
    worker, client = two
    await client.store.turn(client.session, Turn(adds=[CALL]))
    (lease,) = (await worker.store.turn(worker.session, Turn(lanes=(LANE,), room=1))).leased

    await worker.store.turn(worker.session, Turn(outcomes=[Outcome(lease.id, lease.fence, Event.SUCCEED)]))
    await client.is_rung()

    assert [end.id for end in (await client.store.turn(client.session, Turn())).ended] == [CALL.id]


async def test_a_worker_is_rung_when_its_call_is_to_be_cancelled(two: tuple[Listening, Listening]) -> None:
    worker, client = two
    await client.store.turn(client.session, Turn(adds=[CALL]))
    await worker.is_rung()
    await worker.store.turn(worker.session, Turn(lanes=(LANE,), room=1))

    await client.store.cancel([CALL.id], "enough")
    await worker.is_rung()

    (cancel,) = (await worker.store.turn(worker.session, Turn())).cancels
    assert (cancel.id, cancel.message) == (CALL.id, "enough")


async def test_nobody_is_rung_whose_process_has_stopped_listening(two: tuple[Listening, Listening]) -> None:
    worker, client = two
    worker.stop()

    await client.store.turn(client.session, Turn(adds=[CALL]))

    assert not worker.rung.is_set()
    worker.stop = worker.store.listen(worker.session, worker.rung.set)
    await client.store.add(client.session, [NewCall(id=uuid(2), lane=LANE, args=b"j")])
    await worker.is_rung()
