"""Submitting in a transaction of the user's: the call is there if and only if that is committed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncConnection

import everloop
from everloop import (
    ClosedError,
    IdConflict,
    Key,
    KeyConflict,
    Retry,
    RolledBack,
    StoreError,
    StoreUnavailable,
    Task,
    TaskFunction,
    TaskNotFound,
    Use,
    WouldDeadlock,
)
from everloop._core.ids import new_id
from everloop.engine import turns
from everloop.resources.lazy import LazyConnection
from everloop.store.url import sqlite_path
from tests.engine.conftest import make, until_counted
from tests.engine.faults import Faults
from tests.helpers.transactions import SILENT, TELLING, Way, sqlite3_connection, transaction
from tests.helpers.waiting import until

LIMIT_S = 20.0


class Shop:
    """An app, its database, and rows beside its calls."""

    def __init__(self, url: str) -> None:
        self.app = app = make(url)
        self.file = sqlite_path(url)
        self.db = app.database()
        self.done: list[Any] = []

        @app.task
        async def send(to: str) -> str:
            self.done.append(to)
            return f"sent to {to}"

        @app.task
        async def note(what: str, task: Task[Any]) -> None:
            self.done.append((what, task.state))

        @app.task(retries=Retry(1, delay=0))
        async def order(name: str, conn: AsyncConnection = Use(self.db.transaction)) -> str:
            attempt = everloop.current().attempt
            await insert(conn, f"{name} {attempt}")
            task = await app.submit(send(f"{name} {attempt}"), connection=conn)
            if attempt == 1:
                raise ValueError("nothing of this stays")
            return task.id

        self.send: TaskFunction[[str], str] = send
        self.order: TaskFunction[..., str] = order
        self.note: TaskFunction[[str, Task[Any]], None] = note

    async def make_table(self) -> None:
        async with self.db.transaction() as conn:
            await conn.execute(text("create table if not exists orders (name text)"))

    def orders(self) -> list[str]:
        with closing(sqlite3.connect(self.file)) as connection:
            return [name for (name,) in connection.execute("select name from orders order by rowid")]


@pytest.fixture
async def shop(sqlite: str) -> AsyncIterator[Shop]:
    shop = Shop(sqlite)
    async with shop.app.worker():
        await shop.make_table()
        yield shop


async def insert(given: Any, name: str) -> None:
    """Insert an order by whatever kind of connection this is."""
    if isinstance(given, sqlite3.Connection):
        given.execute("insert into orders values (?)", [name])
    elif isinstance(getattr(given, "dbapi_connection", None), sqlite3.Connection):
        given.dbapi_connection.execute("insert into orders values (?)", [name])
    else:
        done = given.execute(text("insert into orders values (:name)"), {"name": name})
        if isinstance(done, Coroutine):
            await done


def all_ways(test: Callable[..., Any]) -> Any:
    return pytest.mark.parametrize("way", [*TELLING, *SILENT], ids=lambda way: way.__name__)(test)


# -- if and only if -----------------------------------------------------------------------------------------


@all_ways
async def test_what_is_committed_runs(shop: Shop, way: Way) -> None:
    async with way(shop.db, shop.file, True) as conn:
        task = await shop.app.submit(shop.send("ada"), connection=conn)
        if "sync_side" not in way.__name__:
            await insert(conn, "tea")
        with pytest.raises(TaskNotFound):
            await shop.app.get_task(task.id)

    assert await task == "sent to ada"
    assert shop.done == ["ada"]
    if "sync_side" not in way.__name__:
        assert shop.orders() == ["tea"]


@all_ways
async def test_what_is_rolled_back_is_not_there_and_its_task_says_so(shop: Shop, way: Way) -> None:
    async with way(shop.db, shop.file, False) as conn:
        if "sync_side" not in way.__name__:
            await insert(conn, "tea")
        task = await shop.app.submit(shop.send("ada"), connection=conn)
        others = await shop.app.submit_many([shop.send("bob"), shop.send("cyd")], connection=conn)

    with pytest.raises(RolledBack) as caught:
        await task
    assert str(caught.value).startswith("send() is not in the store: the transaction on ")
    assert str(shop.file) in str(caught.value)
    assert str(caught.value).endswith(
        " in which it was submitted, or a savepoint in it, was rolled back. Submit it again if it is still "
        "wanted"
    )
    with pytest.raises(RolledBack):
        await task.stored()
    with pytest.raises(RolledBack):
        await others[0].refresh()
    assert isinstance((await asyncio.gather(*others, return_exceptions=True))[1], RolledBack)
    assert set((await shop.app.counts()).values()) == {0}
    assert shop.orders() == []


@all_ways
async def test_waiting_for_it_while_the_transaction_is_open_is_refused(shop: Shop, way: Way) -> None:
    async with way(shop.db, shop.file, True) as conn:
        task = await shop.app.submit(shop.send("ada"), connection=conn)
        waits: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda: _value(task),
            lambda: asyncio.wait_for(task, 5),
            lambda: _gathered(task),
            lambda: asyncio.wait([task]),
            task.stored,
            task.refresh,
        ]
        for wait in waits:
            with pytest.raises(WouldDeadlock) as caught:
                await wait()
            assert str(caught.value).startswith(
                "waiting for send() while the transaction in which it was submitted is open on "
            )
            assert str(shop.file) in str(caught.value)
            assert str(caught.value).endswith(
                ": it begins after the commit, and both would wait for ever. Commit first (leave the `async "
                "with` block), then wait"
            )

    await task.stored()
    assert await asyncio.gather(task) == ["sent to ada"]


async def test_waiting_for_any_call_in_a_transaction_that_has_written_is_refused(shop: Shop) -> None:
    async def listed() -> list[Task[str]]:
        return [task async for task in shop.app.as_completed(shop.send(name) for name in "d")]

    async with asyncio.timeout(LIMIT_S), shop.db.transaction() as conn:
        await insert(conn, "it has written")
        tasks = [shop.app.create_task(shop.send(name)) for name in "abc"]
        waits: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda: asyncio.wait(tasks[:1]),
            lambda: _gathered(tasks[1]),
            lambda: _first(tasks[2]),
            listed,
        ]
        for wait in waits:
            with pytest.raises(
                WouldDeadlock, match=r"^waiting for (send|app.as_completed)\(\) while holding "
            ):
                await wait()
    await asyncio.wait(tasks)


async def test_what_the_store_has_to_write_is_refused_in_a_write_on_its_file(shop: Shop) -> None:
    task, done = await shop.app.submit(shop.send("ada"), delay=3_600), await shop.app.submit(shop.send("bob"))
    await done
    asks: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "app.cancel": lambda: shop.app.cancel(task.id),
        "app.retry": lambda: shop.app.retry(done.id),
        "app.get_task": lambda: shop.app.get_task(task.id),
    }
    async with asyncio.timeout(LIMIT_S):
        for way in (shop.db.transaction, shop.db.engine.begin):
            async with way() as conn:
                await insert(conn, "it has written")
                for name, ask in asks.items():
                    with pytest.raises(
                        WouldDeadlock, match=rf"^{name}\(\) writes to the store, and this code"
                    ):
                        await ask()
                assert not await shop.app.cancel(done.id)  # there is nothing to write
        assert await shop.app.cancel(task.id)


async def test_a_write_transaction_of_the_engine_is_held_like_one_of_a_scope(shop: Shop) -> None:
    task = await shop.app.submit(shop.send("ada"), delay=3_600)
    async with asyncio.timeout(LIMIT_S), shop.db.engine.connect() as conn:
        for _ in range(2):
            await conn.execute(text("select 1"))
            assert await shop.send("bob") == "sent to bob"  # what only reads is in nobody's way
            await insert(conn, "in it")
            with pytest.raises(WouldDeadlock, match=r"while holding a write transaction on .*: it may need"):
                await task
            async with shop.db.connection() as other:
                with pytest.raises(WouldDeadlock, match="the same task holds a write transaction"):
                    await insert(other, "beside it")
            await conn.rollback()
        assert await shop.send("eve") == "sent to eve"


async def test_what_another_task_asks_for_waits_for_the_end_of_the_transaction(shop: Shop) -> None:
    task = await shop.app.submit(shop.send("ada"), delay=3_600)
    async with asyncio.timeout(LIMIT_S):
        async with shop.db.transaction() as conn:
            await insert(conn, "it has written")
            cancelling = asyncio.create_task(shop.app.cancel(task.id))
            await asyncio.sleep(0.05)
            assert not cancelling.done()
        assert await cancelling


async def _first(task: Task[str]) -> str:
    (first,) = asyncio.as_completed([task])
    return await first


async def _value(task: Task[str]) -> str:
    return await task


async def _gathered(task: Task[str]) -> list[str]:
    return await asyncio.gather(task)


async def test_a_savepoint_that_is_rolled_back_takes_its_calls_with_it(shop: Shop) -> None:
    async with shop.db.transaction() as conn:
        kept = await shop.app.submit(shop.send("kept"), connection=conn)
        async with conn.begin_nested() as savepoint:
            undone = await shop.app.submit(shop.send("undone"), connection=conn)
            await savepoint.rollback()
        async with conn.begin_nested():
            inner = await shop.app.submit(shop.send("inner"), connection=conn)

    assert await asyncio.gather(kept, inner) == ["sent to kept", "sent to inner"]
    with pytest.raises(RolledBack):
        await undone
    with pytest.raises(RolledBack):
        await undone.stored()
    assert sorted(shop.done) == ["inner", "kept"]


async def test_calls_of_one_connection_that_are_submitted_at_once_are_all_there(shop: Shop) -> None:
    async with shop.db.transaction() as conn:
        names = [str(n) for n in range(20)]
        tasks = await asyncio.gather(*[shop.app.submit(shop.send(n), connection=conn) for n in names])

    assert await asyncio.gather(*tasks) == [f"sent to {n}" for n in names]


async def test_a_transaction_that_its_connection_has_left_open_is_rolled_back(shop: Shop) -> None:
    engine = shop.db.engine
    async with engine.connect() as conn:
        closed = await shop.app.submit(shop.send("ada"), connection=conn)
    async with engine.connect() as conn:
        lost = await shop.app.submit(shop.send("ada"), connection=conn)
        await conn.invalidate()
    with closing(sqlite3.connect(shop.file)) as plain:
        silent = await shop.app.submit(shop.send("ada"), connection=plain)

    for task in (closed, lost, silent):
        with pytest.raises(RolledBack):
            await task
    assert set((await shop.app.counts()).values()) == {0}


async def test_a_commit_of_which_nobody_told_is_found_out(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everloop.store.sql.runners.sqlalchemy._tell", lambda *_, **__: None)
    async with shop.db.transaction() as conn:
        task = await shop.app.submit(shop.send("ada"), connection=conn)

    assert await task == "sent to ada"


async def test_a_commit_in_another_thread_is_told_on_the_loop(shop: Shop) -> None:
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{shop.file}", connect_args={"check_same_thread": False})
    with engine.connect() as conn:
        task = await shop.app.submit(shop.send("ada"), connection=conn)
        await asyncio.to_thread(conn.commit)
        assert await task == "sent to ada"
        task = await shop.app.submit(shop.send("ada"), connection=conn)
        await asyncio.to_thread(conn.rollback)
        with pytest.raises(RolledBack):
            await task
    engine.dispose()


# -- who is woken -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", TELLING, ids=lambda way: way.__name__)
async def test_a_worker_is_woken_after_the_commit(
    sqlite: str, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody polls here: what runs was rung for, in this session and in another."""
    monkeypatch.setattr(turns, "POLL", 3_600.0)
    client, own = Shop(sqlite), Shop(sqlite)
    async with asyncio.timeout(LIMIT_S), client.app, own.app.worker():
        await client.make_table()
        for shop in (client, own):
            turns_before = own.app._sessions.current().session.turns.turns
            async with way(shop.db, shop.file, True) as conn:
                task = await shop.app.submit(shop.send("ada"), connection=conn)
                late = await shop.app.submit(shop.send.options(delay=1.5)("bob"), connection=conn)
                assert own.app._sessions.current().session.turns.turns <= turns_before + 1
            await until(lambda: own.done == ["ada", "bob"])
            own.done.clear()
            assert await asyncio.gather(task, late) == ["sent to ada", "sent to bob"]


@pytest.mark.parametrize("way", SILENT, ids=lambda way: way.__name__)
async def test_a_worker_finds_by_looking_what_no_connection_tells_of(
    sqlite: str, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "POLL", 0.05)
    client, own = Shop(sqlite), Shop(sqlite)
    async with asyncio.timeout(LIMIT_S), client.app, own.app.worker():
        async with way(client.db, client.file, True) as conn:
            await client.app.submit(client.send("ada"), connection=conn)

        await until(lambda: own.done == ["ada"])


async def test_a_callback_that_was_added_before_the_commit_is_called_at_the_end(shop: Shop) -> None:
    ended: list[str] = []
    async with shop.db.transaction() as conn:
        task = await shop.app.submit(shop.send("ada"), connection=conn)
        task.add_done_callback(lambda task: ended.append(task.result()))

    await until(lambda: ended == ["sent to ada"])


async def test_cancelling_before_the_commit_cancels_after_it(shop: Shop) -> None:
    async with shop.db.transaction() as conn:
        task = await shop.app.submit(shop.send("ada"), connection=conn, delay=3_600)
        assert task.cancel("not wanted")
        assert not task.done()

    with pytest.raises(asyncio.CancelledError):
        await task
    await until_counted(shop.app, "cancelled", 1)
    assert shop.done == []


async def test_nothing_is_asked_of_a_task_whose_plain_connection_is_in_a_transaction(shop: Shop) -> None:
    """Nobody would tell of the commit: it is refused, where it would be forgotten."""
    with closing(sqlite3.connect(shop.file)) as conn:
        task = await shop.app.submit(shop.send("ada"), connection=conn, delay=3_600)
        with pytest.raises(WouldDeadlock):
            task.add_done_callback(print)
        with pytest.raises(WouldDeadlock):
            task.cancel()
        conn.commit()
        assert task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    await until_counted(shop.app, "cancelled", 1)


async def test_a_store_that_cannot_be_asked_fails_the_wait(sqlite: str) -> None:
    shop = Shop(sqlite)
    faults = Faults(shop.app)
    async with asyncio.timeout(LIMIT_S), shop.app:
        async with shop.db.transaction() as conn:
            task = await shop.app.submit(shop.send("ada"), connection=conn)

        def refuse(name: str, _: list[str]) -> None:
            if name == "wait_match":
                raise StoreError("the table of calls is damaged")

        faults.plan = refuse
        with pytest.raises(StoreError, match="the table of calls is damaged"):
            await task


# -- options, keys and ids ----------------------------------------------------------------------------------


async def test_options_hold_in_a_transaction(shop: Shop) -> None:
    id_ = new_id()
    async with shop.db.transaction() as conn:
        task = await shop.app.submit(
            shop.send("ada"), connection=conn, id=id_, tags=["mail"], on_done=partial(shop.note, "done")
        )
        later = await shop.app.submit(shop.send("bob"), connection=conn, delay=3_600)
        assert (task.id, task.state, later.state) == (id_, "ready", "scheduled")

    await until(lambda: shop.done == ["ada", ("done", "succeeded")])
    (found,) = await shop.app.tasks(tag="mail")
    assert (found.id, found.state) == (id_, "succeeded")
    await later.refresh()
    assert later.state == "scheduled"


async def test_the_same_call_again_is_the_same_and_another_with_its_id_is_refused(shop: Shop) -> None:
    id_ = new_id()
    async with shop.db.transaction() as conn:
        first = await shop.app.submit(shop.send("ada"), connection=conn, id=id_)
        again = await shop.app.submit(shop.send("ada"), connection=conn, id=id_)
        with pytest.raises(IdConflict, match=id_):
            await shop.app.submit(shop.send("bob"), connection=conn, id=id_)

    assert await asyncio.gather(first, again) == ["sent to ada"] * 2
    async with shop.db.transaction() as conn:
        later = await shop.app.submit(shop.send("ada"), connection=conn, id=id_)
    assert await later == "sent to ada"
    assert shop.done == ["ada"]


async def test_keys_are_judged_inside_the_transaction(shop: Shop) -> None:
    blocked = await shop.app.submit(shop.send("first"), key="k", delay=3_600)
    async with shop.db.transaction() as conn:
        joined = await shop.app.submit(shop.send("second"), connection=conn, key="k")
        assert joined.id == blocked.id
        with pytest.raises(KeyConflict, match=blocked.id):
            await shop.app.submit(shop.send("x"), connection=conn, key=Key("k", on_conflict="raise"))
        fresh = await shop.app.submit(shop.send("new"), connection=conn, key="n")
        same = await shop.app.submit(shop.send("newer"), connection=conn, key="n")
        assert same.id == fresh.id
        replacing = await shop.app.submit(
            shop.send("third"), connection=conn, key=Key("k", on_conflict="replace")
        )

    assert await asyncio.gather(fresh, same, replacing) == ["sent to new", "sent to new", "sent to third"]
    for task in (blocked, joined):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_replaced_call_stays_when_the_transaction_is_rolled_back(shop: Shop) -> None:
    kept = await shop.app.submit(shop.send("kept"), key="k", delay=3_600)
    async with shop.db.connection() as conn:
        await shop.app.submit(shop.send("new"), connection=conn, key=Key("k", on_conflict="replace"))
        await conn.rollback()

    await kept.refresh()
    assert kept.state == "scheduled"


async def test_many_are_submitted_in_order_and_a_refused_one_fails_no_other(shop: Shop) -> None:
    await shop.app.submit(shop.send("first"), key="k", delay=3_600)
    async with shop.db.session() as session:
        calls = (shop.send(str(n)) for n in range(2_500))
        tasks = await shop.app.submit_many(calls, connection=session)
        refused = await shop.app.submit_many(
            [shop.send("a").options(key=Key("k", on_conflict="raise")), shop.send("b")], connection=session
        )
        assert refused[0].done() and not refused[1].done()

    assert await asyncio.gather(*tasks) == [f"sent to {n}" for n in range(2_500)]
    assert await refused[1] == "sent to b"
    with pytest.raises(KeyConflict):
        refused[0].result()


async def test_no_calls_are_no_tasks(shop: Shop) -> None:
    async with shop.db.transaction() as conn:
        assert await shop.app.submit_many([], connection=conn) == []
        assert isinstance(conn, LazyConnection) and not conn.is_started


# -- in a task ----------------------------------------------------------------------------------------------


async def test_row_call_and_outcome_of_a_task_are_one_commit(shop: Shop) -> None:
    sent = await shop.order("tea")

    assert await (await shop.app.get_task(sent, shop.send)) == "sent to tea 2"
    assert shop.orders() == ["tea 2"]
    assert shop.done == ["tea 2"]
    assert (await shop.app.counts())["succeeded"] == 2


# -- opening by itself --------------------------------------------------------------------------------------


def test_the_store_is_opened_before_a_transaction_begins(sqlite: str) -> None:
    async def main() -> Task[str]:
        shop = Shop(sqlite)
        async with asyncio.timeout(LIMIT_S), shop.db.transaction() as conn:
            return await shop.app.submit(shop.send("ada"), connection=conn)

    assert run_later(sqlite, asyncio.run(main())) == "sent to ada"


def test_a_transaction_that_is_open_already_does_not_wait_for_the_store(sqlite: str) -> None:
    asyncio.run(make_tables(sqlite))

    async def main() -> Task[str]:
        shop = Shop(sqlite)
        async with asyncio.timeout(LIMIT_S), shop.db.transaction() as conn:
            await insert(conn, "tea")
            task = await shop.app.submit(shop.send("ada"), connection=conn)
            assert not shop.app._sessions.current().opened
        await task.stored()
        assert shop.app._sessions.current().opened
        return task

    assert run_later(sqlite, asyncio.run(main())) == "sent to ada"


@pytest.mark.parametrize("driver", ["pool", "sqlite3"])
def test_a_transaction_that_is_open_before_the_tables_are_there_is_refused(sqlite: str, driver: str) -> None:
    async def main() -> None:
        shop = Shop(sqlite)
        way = sqlite3_connection if driver == "sqlite3" else transaction
        async with asyncio.timeout(LIMIT_S), way(shop.db, shop.file, True) as conn:
            if driver == "sqlite3":
                conn.execute("begin immediate")
            else:
                await conn.execute(text("create table orders (name text)"))
            with pytest.raises(everloop.UsageError) as caught:
                await shop.app.submit(shop.send("ada"), connection=conn)
            assert str(caught.value) == (
                f"{str(shop.file)!r} has no tables of Everloop yet, and this transaction keeps Everloop from "
                "making them: open the app before it (`async with app:`, app.run(...), or a worker)"
            )

    asyncio.run(main())


async def make_tables(url: str) -> None:
    shop = Shop(url)
    async with shop.app:
        await shop.make_table()


def run_later(url: str, task: Task[str]) -> str:
    """Run what is in the store, and return the value of this call."""

    async def main() -> str:
        shop = Shop(url)
        async with asyncio.timeout(LIMIT_S), shop.app.worker():
            return await (await shop.app.get_task(task.id, shop.send))

    return asyncio.run(main())


# -- what fails in between ----------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["pool", "sqlite3"])
async def test_a_submission_that_fails_half_way_leaves_nothing_in_the_transaction(
    shop: Shop, driver: str
) -> None:
    trigger = (
        "create temp trigger full before insert on ever_payloads "
        "begin select raise(abort, 'database or disk is full'); end"
    )
    way = sqlite3_connection(shop.db, shop.file, True) if driver == "sqlite3" else shop.db.transaction()
    async with way as conn:
        await insert(conn, "tea")
        if driver == "sqlite3":
            conn.execute(trigger)
        else:
            await conn.exec_driver_sql(trigger)
        with pytest.raises(StoreError) as caught:
            await shop.app.submit(shop.send("ada"), connection=conn)
        if driver == "pool":
            await conn.exec_driver_sql("drop trigger full")

    assert str(caught.value) == (
        "SQLite failed in your transaction (add_root_payloads): database or disk is full "
        "(SQLITE_CONSTRAINT_TRIGGER)"
    )
    assert isinstance(caught.value.__cause__, Exception)
    assert set((await shop.app.counts()).values()) == {0}
    assert shop.orders() == ["tea"]


async def test_a_transaction_that_may_not_write_now_says_why(shop: Shop) -> None:
    with closing(sqlite3.connect(shop.file, timeout=0)) as theirs:
        async with shop.db.transaction() as conn:
            await insert(conn, "tea")
            with pytest.raises(StoreUnavailable) as caught:
                await shop.app.submit(shop.send("ada"), connection=theirs)

    assert str(caught.value) == (
        "SQLite did not let your transaction write (begin_write): database is locked (SQLITE_BUSY). Another "
        "connection is writing, or has written since yours has read: take yours from app.database(), where "
        "they stand in line, or begin it with BEGIN IMMEDIATE"
    )


async def test_the_first_statement_in_a_transaction_writes(shop: Shop) -> None:
    """One that has read before cannot wait for its turn to write."""
    statements: list[str] = []
    with closing(sqlite3.connect(shop.file, isolation_level=None)) as conn:
        conn.execute("begin")
        conn.set_trace_callback(statements.append)
        await shop.app.submit(shop.send("ada"), connection=conn)
        conn.execute("rollback")

    verbs = [statement.split()[0] for statement in statements]
    assert next(verb for verb in verbs if verb != "PRAGMA") == "UPDATE"
    assert "SELECT" in verbs


async def test_a_connection_may_give_its_rows_and_texts_in_a_way_of_its_own(shop: Shop) -> None:
    with closing(sqlite3.connect(shop.file)) as conn:
        conn.row_factory = lambda _, row: {"row": row}
        conn.text_factory = bytes
        task = await shop.app.submit(shop.send("ada"), connection=conn, key="k")
        conn.commit()
        again = await shop.app.submit(shop.send("ada"), connection=conn, key=Key("k", among="ever"))
        conn.commit()

    assert again.id == task.id
    assert await task == "sent to ada"


async def test_what_follows_a_commit_may_fail_without_failing_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the folder of the bells is gone")

    monkeypatch.setattr("everloop.store.sql.runners.doorbell.Doorbell.ring", fail)
    async with shop.db.transaction() as conn:
        task = await shop.app.submit(shop.send("ada"), connection=conn)
    monkeypatch.undo()

    assert await task == "sent to ada"
    assert f"what follows the end of a transaction on {shop.db.url} failed" in caplog.text


@pytest.mark.parametrize("steps", range(1, 40, 3))
async def test_a_submission_that_is_cancelled_half_way_is_there_as_a_whole_or_not_at_all(
    shop: Shop, steps: int
) -> None:
    submitted = committed = False
    try:
        async with shop.db.transaction() as conn:
            await insert(conn, "tea")
            submitting = asyncio.create_task(shop.app.submit(shop.send("ada"), connection=conn))
            for _ in range(steps):
                await asyncio.sleep(0)
            submitting.cancel()
            try:
                await submitting
                submitted = True
            except asyncio.CancelledError:
                assert submitting.cancelled()
        committed = True
    except (ClosedError, PendingRollbackError):
        assert not submitted

    assert shop.orders() == (["tea"] if committed else [])
    calls = 1 if submitted and committed else 0
    await until_counted(shop.app, "succeeded", calls)
    with closing(sqlite3.connect(shop.file)) as connection:
        assert connection.execute("select count(*) from ever_payloads").fetchone() == (calls,)
    async with shop.db.transaction() as conn:
        await insert(conn, "next")
