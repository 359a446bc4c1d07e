"""Who knows that a worker has died takes over from it at once, and writes down how it died."""

from __future__ import annotations

import asyncio

import pytest

from everloop import TaskCrashed
from everloop._core.records import Lane, SessionInfo, Turn
from everloop.engine.keeper import TICK
from everloop.store.memory import MemoryStore
from tests.engine.conftest import make
from tests.helpers.waiting import until

HOUR = 3_600_000_000
HOW = "it was killed by SIGKILL (as the kernel does when memory is short)"


async def dying(store: MemoryStore, *lanes: Lane) -> int:
    """Begin a session that takes a call and is never heard of again."""
    session = await store.open_session(SessionInfo(app="test", kind="worker", host="web-1", pid=4711), HOUR)
    assert len((await store.turn(session, Turn(room=1, lanes=lanes))).leased) == 1
    return session


@pytest.mark.parametrize("told_first", [True, False], ids=["a successor", "another worker"])
async def test_its_calls_are_taken_over_and_tell_how_it_died(*, told_first: bool) -> None:
    app = make(f"memory://last-words-{told_first}", lease=600)
    store = app.open_store()
    assert isinstance(store, MemoryStore)

    @app.task
    async def work() -> str:
        return "done"

    async with app:
        task = await app.submit(work())
        session = await dying(store, Lane("test", "default", "work"))
        if told_first:
            app._sessions.bury(session, HOW)
        async with app.worker(), asyncio.timeout(30):
            app._sessions.bury(session, HOW)
            assert await task == "done"
        first, second = await task.history()
        # What was told again after the first look took it over is forgotten at the next look.
        await until(lambda: app._sessions.dead == {})

    assert (first.kind, first.host, first.pid, first.session) == ("crashed", "web-1", 4711, session)
    assert isinstance(first.error, TaskCrashed)
    assert str(first.error) == f"its worker (pid 4711 on web-1) died: {HOW}"
    assert (second.kind, second.error) == ("succeeded", None)


async def test_what_is_told_is_looked_at_before_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everloop.engine.keeper.TICK", 600 * TICK)
    app = make("memory://last-words-soon", lease=3600)
    store = app.open_store()
    assert isinstance(store, MemoryStore)

    @app.task(crashes=0)
    async def work() -> None: ...

    async with app:
        task = await app.submit(work())
        session = await dying(store, Lane("test", "default", "work"))
        app._sessions.bury(session, HOW)
        with pytest.raises(TaskCrashed) as caught:
            async with asyncio.timeout(30):
                await task
    assert str(caught.value) == (
        "its worker died with it 1 times; `crashes=0` allows 0; the last one was pid 4711 on web-1: " + HOW
    )
