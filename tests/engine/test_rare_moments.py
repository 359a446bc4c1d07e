"""What the simulation has found (`tests/sim`), each in a test of its own."""

from __future__ import annotations

import asyncio

import pytest

from everloop import StoreUnavailable, Task
from everloop import _functions as functions
from everloop.engine.session import Session
from everloop.store.sql.store import SqliteStore
from everloop.store.url import sqlite_path
from tests.engine.conftest import make, until
from tests.engine.faults import Faults


async def test_a_callback_waits_for_a_store_that_cannot_say_what_it_is_about(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "AWAY", 0.01)
    app = make(sqlite)
    faults = Faults(app)
    refused = 0
    told: list[tuple[str, int]] = []

    def plan(name: str, before: list[str]) -> None:
        nonlocal refused
        if name == "read_calls" and refused < 2:
            refused += 1
            raise StoreUnavailable("not now")

    @app.task
    async def work() -> int:
        return 7

    @app.task
    async def tell(task: Task[int]) -> None:
        told.append((task.state, task.result()))

    async with app.worker():
        faults.plan = plan
        await app.submit(work(), on_done=tell)
        await until(lambda: bool(told))
        assert (told, refused) == ([("succeeded", 7)], 2)
        while (await app.counts())["succeeded"] != 2:
            await asyncio.sleep(0)
        assert [task.attempts for task in await app.tasks(name="tell")] == [1]


async def test_a_session_that_is_lost_while_it_is_closed_gets_no_successor(sqlite: str) -> None:
    sessions: list[Session] = []

    class LostInTheEnd(SqliteStore):
        async def close_session(self, session: int) -> None:
            sessions[0]._was_reaped()  # as its keeper says that has just been told
            await super().close_session(session)

    app = make(sqlite)
    app.open_store = lambda: LostInTheEnd(sqlite_path(sqlite))  # type: ignore[method-assign]  # its seam
    async with app:
        sessions.append(app._sessions.current().session)

    assert sessions[0]._recovery is None
    assert sessions[0]._keeper is None
