"""`app.sync`: the app for code without a loop."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

import everloop
from everloop import (
    App,
    IdConflict,
    OptionError,
    RolledBack,
    SyncTask,
    TaskFailed,
    TaskNotFound,
    UsageError,
    WouldDeadlock,
)
from everloop._bridge import Caller
from everloop._core.ids import new_id
from everloop.store.url import sqlite_path
from tests.helpers.waiting import until

LIMIT = 20.0


class Shop:
    """An app with a worker on the loop of its `sync`."""

    def __init__(self, url: str) -> None:
        self.app = app = App("shop", url)
        self.gate = threading.Event()
        self.began = threading.Event()
        self.ran: list[Any] = []

        @app.task
        async def add(x: int, y: int) -> int:
            self.ran.append((x, y))
            return x + y

        @app.task
        async def fail(why: str) -> int:
            raise ValueError(why)

        @app.task
        async def hold() -> str:
            self.began.set()
            while not self.gate.is_set():
                await asyncio.sleep(0.005)
            return "let go"

        self.add, self.fail, self.hold = add, fail, hold


@pytest.fixture
def shop(sqlite: str, request: pytest.FixtureRequest) -> Iterator[Shop]:
    shop = Shop(sqlite)
    yield shop
    shop.gate.set()
    shop.app.sync.close()


def test_a_call_is_run(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert shop.app.sync.run(shop.add(1, 2)) == 3
    assert "so this process runs its tasks itself" in capsys.readouterr().err


def test_a_task_is_like_a_future(shop: Shop) -> None:
    task = shop.app.sync.submit(shop.add(1, 2), tags=["sums"])
    assert isinstance(task, SyncTask)
    assert task.result(timeout=LIMIT) == task.result() == 3
    assert (task.done(), task.cancelled(), task.exception()) == (True, False, None)
    task.refresh()
    assert (task.name, task.state, task.attempts, task.progress) == ("add", "succeeded", 1, None)
    assert task.created is not None
    assert repr(task) == f"<everloop.SyncTask add {task.id} succeeded>"


def test_many_calls_are_submitted_in_order(shop: Shop) -> None:
    tasks = shop.app.sync.submit_many(shop.add(n, n) for n in range(50))
    assert [task.result(LIMIT) for task in tasks] == [2 * n for n in range(50)]
    assert shop.app.sync.counts()["succeeded"] == 50


def test_a_failure_is_raised_where_it_is_waited_for(shop: Shop) -> None:
    with pytest.raises(ValueError, match="no flour"):
        shop.app.sync.run(shop.fail("no flour"))
    error = shop.app.sync.submit(shop.fail("no eggs")).exception(LIMIT)
    assert isinstance(error, TaskFailed) and str(error) == "no eggs"
    id_ = new_id()
    shop.app.sync.submit(shop.add(1, 2), id=id_, delay=60)
    with pytest.raises(IdConflict):
        shop.app.sync.submit(shop.add(2, 2), id=id_)


def test_tasks_are_found_cancelled_and_tried_again(shop: Shop) -> None:
    sync = shop.app.sync
    task = sync.submit(shop.hold())
    assert shop.began.wait(LIMIT)
    found = sync.get_task(task.id, shop.hold)
    assert found.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        found.result(LIMIT)
    with pytest.raises(asyncio.CancelledError):
        task.result(LIMIT)
    assert task.cancelled()
    assert not sync.cancel(task.id)

    shop.gate.set()
    again = sync.retry(task.id)
    assert again.id != task.id and again.result(LIMIT) == "let go"
    with pytest.raises(TaskNotFound):
        sync.get_task(new_id())


def test_waiting_ends_and_the_call_goes_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    task = shop.app.sync.submit(shop.hold())
    with pytest.raises(TimeoutError, match=r"hold\(\) has not ended within 0\.05 s; it goes on"):
        task.result(timeout=0.05)
    with pytest.raises(TimeoutError):
        task.exception(timeout=0.05)

    def interrupt(caller: Caller, *_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("everloop._bridge._next", interrupt)
        with pytest.raises(KeyboardInterrupt):
            task.result()
    shop.gate.set()
    assert task.result(LIMIT) == "let go"


def test_any_number_of_threads_may_use_it_at_once(shop: Shop) -> None:
    values: list[int] = []

    def use(n: int) -> None:
        values.append(shop.app.sync.run(shop.add(n, 0)))

    threads = [threading.Thread(target=use, args=(n,)) for n in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert sorted(values) == list(range(30))
    assert sum(t.name == "everloop-sync" for t in threading.enumerate()) == 1


def test_it_opens_again_after_a_close(shop: Shop) -> None:
    task = shop.app.sync.submit(shop.add(1, 2), delay=0.2)
    shop.app.sync.close()
    assert not any(t.name.startswith("everloop") for t in threading.enumerate())
    assert not task.done()
    assert shop.app.sync.run(shop.add(2, 2)) == 4
    assert task.result(LIMIT) == 3


async def test_it_does_not_block_a_loop(shop: Shop) -> None:
    sync = shop.app.sync
    uses: dict[str, Callable[[], object]] = {
        "app.sync.submit() .* write `await app.submit(...)`": lambda: sync.submit(shop.add(1, 2)),
        "app.sync.run() .* write `await call`": lambda: sync.run(shop.add(1, 2)),
        "app.sync.submit_many() .* write `await app.submit_many(...)`": lambda: sync.submit_many([]),
        "app.sync.get_task() .* write `await app.get_task(...)`": lambda: sync.get_task("x"),
        "app.sync.cancel() .* write `await app.cancel(...)`": lambda: sync.cancel("x"),
        "app.sync.retry() .* write `await app.retry(...)`": lambda: sync.retry("x"),
        "app.sync.counts() .* write `await app.counts(...)`": sync.counts,
    }
    for name, use in uses.items():
        said, instead = name.split(" .* ")
        with pytest.raises(UsageError, match=f"{re.escape(said)} was called while .* {re.escape(instead)}"):
            use()
    task = await asyncio.to_thread(sync.submit, shop.hold())
    with pytest.raises(UsageError, match=r"task\.result"):
        task.result()
    shop.gate.set()
    assert await asyncio.to_thread(task.result) == "let go"


# -- inside a `def` task -------------------------------------------------------------------------------------


async def test_a_def_awaits_a_call_and_gives_its_slot_back(sqlite: str) -> None:
    shop = Shop(sqlite)

    @shop.app.task
    def outer(x: int) -> int:
        submitted = shop.app.sync.submit(shop.add(x, 1))
        return shop.app.sync.run(shop.add(x, 2), priority=1) + submitted.result()

    async with shop.app.worker(concurrency=1):
        assert await outer(1) == 5
        children = await shop.app.tasks(name="add")
        assert len(children) == 2
    assert not any(t.name == "everloop-sync" for t in threading.enumerate())


async def test_a_tree_of_def_is_deeper_than_the_worker_has_slots(sqlite: str) -> None:
    shop = Shop(sqlite)

    @shop.app.task
    def tree(depth: int) -> int:
        return shop.app.sync.run(tree(depth - 1)) + 1 if depth else 0

    async with shop.app.worker(concurrency=1), asyncio.timeout(LIMIT):
        assert await asyncio.gather(*(tree(10) for _ in range(3))) == [10] * 3


async def test_another_attempt_finds_what_the_first_one_got(sqlite: str) -> None:
    shop = Shop(sqlite)

    @shop.app.task(retries=1)
    def outer() -> int:
        value = shop.app.sync.run(shop.add(1, 1))
        if everloop.current().attempt == 1:
            raise ValueError("once more")
        return value

    async with shop.app.worker():
        assert await outer() == 2
    assert shop.ran == [(1, 1)]


async def test_a_cancel_reaches_a_def_that_waits_and_its_child(sqlite: str) -> None:
    shop = Shop(sqlite)
    ended: list[str | None] = []

    @shop.app.task
    def outer() -> str:
        try:
            return shop.app.sync.run(shop.hold())
        finally:
            ended.append(everloop.current().stopping)

    async with shop.app.worker():
        task = await shop.app.submit(outer())
        await until(shop.began.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (child,) = await shop.app.tasks(name="hold")
        await until(lambda: child.done() or ended == ["cancelled"])
        await child.refresh()
        assert child.state == "cancelled"
    assert ended == ["cancelled"]


async def test_a_def_that_was_asked_to_stop_hears_it_when_it_waits_next(sqlite: str) -> None:
    shop = Shop(sqlite)
    began, heard = threading.Event(), []

    @shop.app.task
    def outer() -> str:
        began.set()
        while everloop.current().stopping is None:
            threading.Event().wait(0.005)
        try:
            shop.app.sync.run(shop.add(1, 1))
        except asyncio.CancelledError as error:
            heard.append(type(error).__name__)
            shop.app.sync.submit(shop.add(2, 2))  # to clean up is allowed
            raise
        return "not heard"

    async with shop.app.worker():
        task = await shop.app.submit(outer())
        await until(began.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert heard == ["CancelledError"]


async def test_a_drain_ends_the_waiting_and_not_the_call(sqlite: str) -> None:
    shop = Shop(sqlite)

    @shop.app.task
    def outer() -> str:
        return shop.app.sync.run(shop.hold())

    async with shop.app:
        async with shop.app.worker():
            task = await shop.app.submit(outer())
            await until(shop.began.is_set)
        (child,) = await shop.app.tasks(name="hold")
        assert (child.state, (await shop.app.get_task(task.id)).state) == ("ready", "ready")
        shop.gate.set()
        async with shop.app.worker():
            assert await task == "let go"


# -- in a transaction of the caller's -----------------------------------------------------------------------


def test_a_call_is_there_if_and_only_if_a_plain_connection_commits(shop: Shop, sqlite: str) -> None:
    shop.app.sync.counts()  # the store is there
    with closing(sqlite3.connect(sqlite_path(sqlite), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        task = shop.app.sync.submit(shop.add(1, 2), connection=connection)
        with pytest.raises(WouldDeadlock):
            task.result(LIMIT)
        connection.commit()
        assert task.result(LIMIT) == 3

        connection.execute("BEGIN IMMEDIATE")
        gone, also = shop.app.sync.submit_many([shop.add(3, 3), shop.add(4, 4)], connection=connection)
        connection.rollback()
        with pytest.raises(RolledBack):
            gone.result(LIMIT)
    assert shop.ran == [(1, 2)]
    assert also.id != gone.id


def test_so_it_is_with_sqlalchemy(shop: Shop, sqlite: str) -> None:
    engine = create_engine(f"sqlite:///{sqlite_path(sqlite)}")
    shop.app.sync.counts()
    with Session(engine) as session, session.begin():
        task = shop.app.sync.submit(shop.add(1, 2), connection=session)
    assert task.result(LIMIT) == 3
    with engine.connect() as connection:
        gone = shop.app.sync.submit(shop.add(3, 3), connection=connection)
        connection.rollback()
    with pytest.raises(RolledBack):
        gone.result(LIMIT)
    engine.dispose()
    assert shop.ran == [(1, 2)]


def test_connections_that_it_cannot_use(shop: Shop, sqlite: str) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{sqlite_path(sqlite)}")
    wrong: Any = engine.connect()
    with pytest.raises(OptionError, match=r"takes a synchronous connection, not <.*AsyncConnection"):
        shop.app.sync.submit(shop.add(1, 2), connection=wrong)
    nothing: Any = object()
    with pytest.raises(OptionError, match="`connection` is a SQLAlchemy connection or session"):
        shop.app.sync.submit(shop.add(1, 2), connection=nothing)
    closed = sqlite3.connect(":memory:")
    closed.close()
    with pytest.raises(UsageError, match="is closed: submit before you close it"):
        shop.app.sync.submit(shop.add(1, 2), connection=closed)
