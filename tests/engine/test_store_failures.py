"""The store goes away, loses answers, refuses items: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import everloop
from everloop import App, ResultNotStorable, StoreError
from everloop._core.clock import ManualClock, SystemClock
from everloop.engine import turns
from everloop.store.sql.store import SqliteStore
from everloop.store.url import sqlite_path
from tests.engine.conftest import make, until_counted, worker_of
from tests.engine.faults import Faults, Poisoned
from tests.helpers.seeds import seed
from tests.helpers.waiting import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine try again soon, and look often."""
    monkeypatch.setattr(turns, "RETRY_FROM", 0.001)
    monkeypatch.setattr(turns, "RETRY_TO", 0.02)
    monkeypatch.setattr(turns, "POLL", 0.05)


@pytest.fixture
def app(sqlite: str) -> App:
    return make(sqlite)


@pytest.fixture
def faults(app: App) -> Faults:
    return Faults(app)


@contextmanager
def reaped(app: App) -> Iterator[SqliteStore]:
    """Give a second store on the same file whose clock runs an hour ahead."""
    clock = ManualClock(SystemClock().now() + 3_600_000_000)
    yield SqliteStore(sqlite_path(app.store_url), clock=clock)


# -- away ---------------------------------------------------------------------------------------------------


async def test_what_happens_while_the_store_is_away_is_stored_when_it_is_back(
    app: App, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    ran: Counter[int] = Counter()
    gate = asyncio.Event()

    @app.task
    async def work(n: int) -> int:
        ran[n] += 1
        await gate.wait()
        return n

    async with app.worker():
        running = [asyncio.ensure_future(work(n)) for n in range(20)]
        await until(lambda: len(ran) == 20)
        faults.go_away()
        gate.set()  # their outcomes cannot be stored now
        submitted = [app.create_task(work(n)) for n in range(20, 40)]
        waiting = asyncio.ensure_future(app.submit(work(40)))
        loop = app._sessions.current().session.turns
        seen = loop.turns
        await until(lambda: loop.turns >= seen + 3)
        assert not waiting.done() and not any(task.done() for task in [*running, *submitted])

        faults.come_back()
        assert await asyncio.gather(*running, *submitted, await waiting) == list(range(41))

    assert ran == Counter(range(41))
    said = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [r.getMessage() for r in said] == [
        "everloop: the store does not answer (the test took the store away); going on when it does"
    ]


async def test_a_cancellation_asked_while_the_store_is_away_arrives(app: App, faults: Faults) -> None:
    stopped = asyncio.Event()
    began = asyncio.Event()

    @app.task
    async def work() -> None:
        began.set()
        try:
            await asyncio.sleep(3_600)
        finally:
            stopped.set()

    async with app.worker():
        task = await app.submit(work())
        await began.wait()
        faults.go_away()
        task.cancel()
        loop = app._sessions.current().session.turns
        seen = loop.turns
        await until(lambda: loop.turns >= seen + 2)
        faults.come_back()
        async with asyncio.timeout(5):
            await stopped.wait()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_counted(app, "cancelled", 1)


async def test_a_keyed_call_waits_for_the_store_like_any_other(app: App, faults: Faults) -> None:
    @app.task
    async def work(n: int) -> int:
        return n

    async with app.worker():
        assert await work(0) == 0
        faults.go_away()
        keyed = [asyncio.ensure_future(app.submit(work(n), key=f"k{n % 3}")) for n in range(6)]
        asyncio.get_running_loop().call_later(0.05, faults.come_back)
        tasks = await asyncio.gather(*keyed)
        assert len({task.id for task in tasks}) == 3
        assert await asyncio.gather(*tasks) == [0, 1, 2, 0, 1, 2]


async def test_get_task_awaited_while_the_store_is_away_is_told_later(app: App, faults: Faults) -> None:
    gate = asyncio.Event()

    @app.task
    async def work() -> int:
        await gate.wait()
        return 7

    async with app.worker():
        id = (await app.submit(work())).id
        (listed,) = await app.tasks()
        faults.go_away()
        waiting = asyncio.ensure_future(_wait(listed))
        asyncio.get_running_loop().call_later(0.05, faults.come_back)
        gate.set()
        assert await waiting == 7
        assert await (await app.get_task(id)) == 7


async def _wait(task: everloop.Task[int]) -> int:
    return await task


async def test_closing_while_the_store_is_away_ends_and_says_what_is_not_stored(
    sqlite: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "GIVE_UP", 0.05)
    app = make(sqlite, lease=0.5)
    faults = Faults(app)
    began = asyncio.Event()
    gate = asyncio.Event()

    @app.task
    async def work() -> int:
        began.set()
        await gate.wait()
        return 1

    async with app.worker(grace=1):
        running = app.create_task(work())
        await began.wait()
        faults.go_away()
        late = app.create_task(work())
        gate.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(StoreError):
        await late
    assert "1 calls were not submitted, 1 outcomes not stored (those calls run again)" in caplog.text

    faults.come_back()
    async with app.worker():
        await until_counted(app, "succeeded", 1)


async def test_a_full_disk_is_waited_out(app: App) -> None:
    @app.task
    async def size(text: str) -> int:
        return len(text)

    async def limit(pages: int) -> None:
        store = app._sessions.current().session.store
        assert isinstance(store, SqliteStore) and store._hot is not None
        # In the connection's own thread: from another one, a statement that succeeds may hide the error of
        # one that fails at the same time.
        await store._hot.call(
            lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        )

    async with app.worker():
        assert await size("small") == 5
        await limit(1)  # as many as there are
        waiting = asyncio.ensure_future(size("x" * 900_000))
        loop = app._sessions.current().session.turns
        seen = loop.turns
        await until(lambda: loop.turns >= seen + 3)
        assert not waiting.done()
        await limit(1 << 30)
        assert await waiting == 900_000


# -- lost answers -------------------------------------------------------------------------------------------


async def test_lost_answers_lose_nothing_and_repeat_nothing(app: App, faults: Faults) -> None:
    rng = random.Random(seed())
    lock = threading.Lock()
    ran: Counter[int] = Counter()

    @app.task
    async def leaf(n: int) -> int:
        ran[n] += 1
        await asyncio.sleep(0)
        return n

    @app.task
    async def pair(n: int) -> int:
        return sum(await asyncio.gather(leaf(2 * n), leaf(2 * n + 1)))

    def unlucky(before: list[str]) -> bool:
        with lock:
            return "session_open" not in before and rng.random() < 0.4

    async with app.worker(concurrency=5):
        faults.lose_answers(unlucky)
        async with asyncio.timeout(30):
            results = await asyncio.gather(*(pair(n) for n in range(50)))
        faults.come_back()
        assert results == [4 * n + 1 for n in range(50)]
        assert ran == Counter(range(100))
        counts = await app.counts()
        assert (counts["succeeded"], sum(counts.values())) == (150, 150)
        assert worker_of(app).slots.running == worker_of(app).slots.suspended == 0


async def test_an_end_in_a_lost_answer_is_told_again(app: App, faults: Faults) -> None:
    gate = asyncio.Event()

    @app.task
    async def work() -> int:
        await gate.wait()
        return 7

    async with app.worker():
        waiting = app.create_task(work())
        await until_counted(app, "leased", 1)
        faults.lose_answers(lambda before: "settle_match" in before)
        gate.set()
        await until_counted(app, "succeeded", 1)
        faults.come_back()
        async with asyncio.timeout(5):
            assert await waiting == 7


async def test_a_cancellation_in_a_lost_answer_is_told_again(app: App, faults: Faults) -> None:
    began = asyncio.Event()

    @app.task
    async def work() -> None:
        began.set()
        await asyncio.sleep(3_600)

    async with app.worker():
        task = await app.submit(work())
        await began.wait()
        faults.lose_answers(lambda before: "inbox_take" in before)
        await app.cancel(task.id)
        loop = app._sessions.current().session.turns
        seen = loop.turns
        await until(lambda: loop.turns >= seen + 2)
        faults.come_back()
        async with asyncio.timeout(5):
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_leases_that_arrive_when_the_worker_has_ended_are_given_back(app: App, faults: Faults) -> None:
    reached, go_on = threading.Event(), threading.Event()

    @app.task
    async def work() -> int:
        return 7

    def stop_at_lease(name: str, before: list[str]) -> None:
        if name == "lease_take":
            reached.set()
            go_on.wait(10)

    async with app:
        task = await app.submit(work())
        faults.plan = stop_at_lease
        async with app.worker():
            await until(reached.is_set)
            faults.come_back()
            session = app._sessions.current().session
            ended = asyncio.ensure_future(until(lambda: session.turns.taker is None))
            ended.add_done_callback(lambda _: go_on.set())
        await until_counted(app, "ready", 1)
        async with app.worker():
            assert await task == 7
        assert task.attempts == 1


# -- items that cannot be stored ----------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("bad item"), StoreError("bad item")], ids=type)
async def test_one_call_that_cannot_be_stored_fails_alone(app: App, error: Exception) -> None:
    store = Poisoned(sqlite_path(app.store_url))
    store.error = error
    app.open_store = lambda: store  # type: ignore[method-assign]  # its seam

    @app.task
    async def echo(text: str) -> str:
        return text

    async with app.worker():
        texts = ["poison" if n == 37 else str(n) for n in range(100)]
        tasks = [app.create_task(echo(text)) for text in texts]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [r for n, r in enumerate(results) if n != 37] == [t for t in texts if t != "poison"]
        assert results[37] is error
        with pytest.raises(type(error), match="bad item"):
            await tasks[37].stored()


async def test_one_outcome_that_cannot_be_stored_fails_its_call_alone_and_once(app: App) -> None:
    app.open_store = lambda: Poisoned(sqlite_path(app.store_url))  # type: ignore[method-assign]  # its seam
    ran: Counter[int] = Counter()

    @app.task(retries=3)
    async def work(n: int) -> str:
        ran[n] += 1
        return "poison" if n == 3 else str(n)

    async with app.worker():
        results = await asyncio.gather(*(work(n) for n in range(20)), return_exceptions=True)
    assert isinstance(results[3], ResultNotStorable)
    assert "its outcome cannot be stored: this item cannot be stored" in str(results[3])
    assert [r for n, r in enumerate(results) if n != 3] == [str(n) for n in range(20) if n != 3]
    assert ran == Counter(range(20))


async def test_a_keyed_call_that_cannot_be_stored_fails_alone(app: App) -> None:
    app.open_store = lambda: Poisoned(sqlite_path(app.store_url))  # type: ignore[method-assign]  # its seam

    @app.task
    async def echo(text: str) -> str:
        return text

    async with app.worker():
        texts = ["poison" if n == 5 else str(n) for n in range(10)]
        calls = (app.submit(echo(text), key=text) for text in texts)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(answers[5], ValueError)
        tasks = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert await asyncio.gather(*tasks) == [text for text in texts if text != "poison"]


# -- sessions -----------------------------------------------------------------------------------------------


async def test_a_session_that_was_reaped_while_alive_stops_its_bodies_and_begins_anew(
    sqlite: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = make(sqlite, lease=0.5)
    began: list[str] = []
    stopped: list[str | None] = []
    gate = asyncio.Event()

    @app.task
    async def work() -> int:
        began.append(everloop.current().id)
        try:
            await gate.wait()
        except asyncio.CancelledError:
            stopped.append(everloop.current().stopping)
            raise
        return 7

    async with app.worker():
        task = await app.submit(work())
        await until(lambda: len(began) == 1)
        with reaped(app) as other:
            await other.open()
            assert await other.reap() == 1
            await other.close()
        await until(lambda: len(began) == 2)
        assert stopped == ["shutdown"]
        gate.set()
        assert await task == 7
        await task.refresh()
        assert (task.state, task.attempts) == ("succeeded", 1)
    assert "this process was away for longer than its lease; opening a new session" in caplog.text


async def test_waiters_of_a_reaped_client_still_get_their_results(sqlite: str) -> None:
    gate = asyncio.Event()
    client, server = make(sqlite, lease=0.5), make(sqlite)

    async def work() -> int:
        await gate.wait()
        return 7

    of_client, _ = client.task(work), server.task(work)
    async with client:
        submitted, awaited = await client.submit(of_client()), asyncio.ensure_future(of_client())
        first = client._sessions.current().session.number
        with reaped(client) as other:
            await other.open()
            await other.reap()
            await other.close()
        session = client._sessions.current().session
        await until(lambda: session.number != first)
        gate.set()
        async with server.worker():
            assert [await submitted, await awaited] == [7, 7]


async def test_a_session_that_finds_the_store_away_while_it_begins_anew_tries_again(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from everloop.engine import session as sessions

    monkeypatch.setattr(sessions, "RETRY_TO", 0.02)
    app = make(sqlite, lease=0.5)
    faults = Faults(app)
    refused = 0

    def plan(name: str, before: list[str]) -> None:
        nonlocal refused
        if name == "session_open" and refused < 3:
            refused += 1
            raise everloop.StoreUnavailable("not now")

    @app.task
    async def work() -> int:
        return 7

    async with app.worker():
        first = app._sessions.current().session.number
        faults.plan = plan
        with reaped(app) as other:
            await other.open()
            await other.reap()
            await other.close()
        await until(lambda: refused == 3)
        assert await work() == 7
        assert app._sessions.current().session.number > first


async def test_a_session_that_finds_no_descriptor_while_it_begins_anew_tries_again(
    sqlite: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from everloop.engine import session as sessions

    monkeypatch.setattr(sessions, "RETRY_TO", 0.02)
    app = make(sqlite)
    listen, refused = SqliteStore.listen, 0

    def refuse_once(store: SqliteStore, number: int, wake: Callable[[], None]) -> Callable[[], None]:
        nonlocal refused
        refused += 1
        if refused == 1:
            raise OSError(24, "Too many open files")
        return listen(store, number, wake)

    async with app.worker():
        session = app._sessions.current().session
        await session.store.close_session(session.number)
        monkeypatch.setattr(SqliteStore, "listen", refuse_once)
        session._was_reaped()
        await until(lambda: refused == 2 and session._keeper is not None)
        assert session.is_kept
    assert "no new session yet ([Errno 24] Too many open files); trying again" in caplog.text


async def test_the_keeper_survives_whatever_the_store_raises(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    from everloop.engine import keeper

    monkeypatch.setattr(keeper, "TICK", 0.01)
    failed = 0

    async def tend(self: SqliteStore) -> None:
        nonlocal failed
        failed += 1
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SqliteStore, "tend", tend)
    async with app:
        await until(lambda: failed >= 3)


def test_the_bells_of_a_deleted_store_do_not_disturb_a_new_one(workdir: Path) -> None:
    bells = workdir / "store.db.bells"
    bells.mkdir()
    import socket

    for name in ("1", "w1", "2", "w2"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
            dead.bind(str(bells / name))
    app = App("test", "sqlite:///store.db", embed=False, lease=0.5)

    @app.task
    async def work() -> int:
        await asyncio.sleep(0.3)
        return everloop.current().attempt

    async def main() -> list[int]:
        return list(await asyncio.gather(*(work() for _ in range(3))))

    assert app.run(main()) == [1, 1, 1]
    assert not list(bells.glob("*1"))
