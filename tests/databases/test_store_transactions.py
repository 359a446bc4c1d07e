"""An app whose calls are on the server: effects, calls and outcomes in one transaction of its own pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, closing
from typing import Any

import psycopg
import pymysql
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from everloop import (
    App,
    IdConflict,
    Key,
    KeyConflict,
    RolledBack,
    StoreUnavailable,
    TaskFailed,
    UsageError,
    Use,
    WouldDeadlock,
)
from everloop._core.ids import new_id

pytestmark = pytest.mark.server

#: Half of what the store waits for a lock, many times.
LIMIT_S = 20.0


class Shop:
    """An app on the database, with rows beside its calls."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.app = app = App("shop", url, embed=False)
        self.db = db = app.database()

        @app.task
        async def send(to: str) -> str:
            return f"sent to {to}"

        @app.task
        async def pay(order: int, conn: AsyncConnection = Use(db.transaction)) -> int:
            await conn.execute(text("INSERT INTO payments VALUES (:order)"), {"order": order})
            if order < 0:
                raise ValueError(order)
            return order

        self.send, self.pay = send, pay

    async def paid(self) -> list[int]:
        async with self.db.connection() as conn:
            rows = await conn.execute(text("SELECT id FROM payments ORDER BY id"))
            return [row[0] for row in rows]


@pytest.fixture
async def shop(url: str) -> AsyncIterator[Shop]:
    shop = Shop(url)
    async with shop.app:
        async with shop.db.transaction() as conn:
            await conn.execute(text("CREATE TABLE payments (id BIGINT)"))
        yield shop


async def test_the_pool_is_on_the_stores_database(shop: Shop) -> None:
    assert shop.db.own
    assert not shop.app.database(shop.url + "_other").own


async def test_a_body_that_submits_in_its_transaction_holds_up_neither_its_worker_nor_itself(
    shop: Shop,
) -> None:
    began = asyncio.Event()
    gate = asyncio.Event()

    @shop.app.task
    async def order(conn: AsyncConnection = Use(shop.db.transaction)) -> None:
        await shop.app.submit(shop.send("ada"), connection=conn)
        await shop.app.submit(shop.send("bob"))
        began.set()
        await gate.wait()

    async with shop.app.worker(), asyncio.timeout(LIMIT_S):
        ended, cancelled = await shop.app.submit_many([order(), order()])
        await began.wait()
        assert await shop.send("cy") == "sent to cy"
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        gate.set()
        await ended
    assert len(await shop.app.tasks(name="send")) == 4


@pytest.mark.parametrize("commits", [True, False])
async def test_an_id_that_an_open_transaction_has_submitted_holds_up_nobody_else(
    shop: Shop, commits: bool
) -> None:
    """Two requests with one id: the second waits for what becomes of the first, and nobody waits for it."""
    chosen, is_open, may_end = new_id(), asyncio.Event(), asyncio.Event()

    async def request() -> None:
        async with shop.db.transaction() as conn:
            await shop.app.submit(shop.send("ada"), connection=conn, id=chosen)
            is_open.set()
            await may_end.wait()
            if not commits:
                raise LookupError("nothing of that")

    async with shop.app.worker(), asyncio.timeout(LIMIT_S):
        first = asyncio.create_task(request())
        await is_open.wait()
        second = asyncio.create_task(shop.app.submit(shop.send("ada"), id=chosen))
        for n in range(3):
            async with asyncio.timeout(4):  # a lock is waited for for five
                assert await shop.send("bob") == "sent to bob"
                other = await shop.app.submit(shop.send("cy"), id=new_id())
                keyed = await shop.app.submit(shop.send("dan"), key=Key(f"dan {n}"))
                assert await asyncio.gather(other, keyed) == ["sent to cy", "sent to dan"]
        assert not second.done()
        may_end.set()
        (failed,) = await asyncio.gather(first, return_exceptions=True)
        assert (failed is None) == commits
        assert await (await second) == "sent to ada"
    assert len(await shop.app.tasks(name="send")) == 10


async def test_who_begins_to_wait_for_a_task_does_not_fail_its_one_commit(shop: Shop) -> None:
    """It watches the row for a moment, in which the outcome cannot be written."""
    orders = 60
    async with shop.app.worker(), asyncio.timeout(LIMIT_S):
        tasks = await shop.app.submit_many([shop.pay(n) for n in range(orders)])
        other = App("shop", shop.url, embed=False)
        async with other:
            seen = await asyncio.gather(*(other.get_task(task.id) for task in tasks))
            assert await asyncio.gather(*seen) == list(range(orders))
    assert await shop.paid() == list(range(orders))


async def test_effect_call_and_outcome_are_one_commit(shop: Shop) -> None:
    async with shop.app.worker(), asyncio.timeout(20):
        async with shop.db.transaction() as conn:
            await conn.execute(text("INSERT INTO payments VALUES (1)"))
            task = await shop.app.submit(shop.send("ada"), connection=conn)
            with pytest.raises(WouldDeadlock):
                await task
        assert await task == "sent to ada"
        assert await shop.pay(2) == 2
        with pytest.raises(TaskFailed):
            await shop.pay(-3)
    assert await shop.paid() == [1, 2]


async def test_what_is_rolled_back_is_not_there(shop: Shop) -> None:
    async with shop.db.connection() as conn:
        task = await shop.app.submit(shop.send("ada"), connection=conn)
        await conn.rollback()
    with pytest.raises(RolledBack):
        await task
    assert sum((await shop.app.counts()).values()) == 0


async def test_ids_and_keys_are_judged_in_the_transaction(shop: Shop) -> None:
    async with shop.db.transaction() as conn:
        first = await shop.app.submit(shop.send("ada"), connection=conn, key=Key("a"))
        same = await shop.app.submit(shop.send("bob"), connection=conn, key=Key("a"))
        assert same.id == first.id
        with pytest.raises(KeyConflict):
            await shop.app.submit(shop.send("bob"), connection=conn, key=Key("a", on_conflict="raise"))
        with pytest.raises(IdConflict):
            await shop.app.submit(shop.send("eve"), connection=conn, id=first.id)
        many = await shop.app.submit_many([shop.send(str(n)) for n in range(300)], connection=conn)
    assert len({task.id for task in many}) == 300
    assert (await shop.app.counts())["ready"] == 301


async def test_a_transaction_that_stays_open_slows_nobody_else(shop: Shop) -> None:
    opened = asyncio.Event()

    async def run_others() -> list[str]:
        await opened.wait()
        return await asyncio.gather(*[shop.app.create_task(shop.send(str(n))) for n in range(20)])

    async with shop.app.worker(), asyncio.timeout(20):
        others = asyncio.create_task(run_others())  # whoever holds the transaction may not wait for them
        async with shop.db.transaction() as conn:
            key = Key("a", among="done")
            held = await shop.app.submit(shop.send("ada"), connection=conn, key=key)
            waiting = asyncio.ensure_future(shop.app.submit(shop.send("bob"), key=key))
            # Others, with keys and without, one of them in a transaction, go on beside it.
            opened.set()
            assert await others
            assert await shop.app.submit(shop.send("eve"), key=Key("b"))
            assert not waiting.done()
        joined = await waiting
        assert joined.id == held.id
        assert await joined == "sent to ada"


async def test_keys_hold_whatever_the_isolation(shop: Shop) -> None:
    async with shop.db.engine.connect() as plain:
        conn = await plain.execution_options(isolation_level="REPEATABLE READ")
        await conn.execute(text("SELECT * FROM payments"))  # what it sees is settled here
        first = await shop.app.submit(shop.send("ada"), key=Key("a"))
        if "postgresql" in shop.url:
            with pytest.raises(UsageError, match="READ COMMITTED"):
                await shop.app.submit(shop.send("bob"), connection=conn, key=Key("a"))
        else:  # which it is by default there
            with pytest.raises(StoreUnavailable, match="since this one began"):
                await shop.app.submit(shop.send("bob"), connection=conn, key=Key("a"))
        assert await shop.app.submit(shop.send("bob"), connection=conn)
        await conn.rollback()
    async with shop.db.transaction() as conn:
        assert (await shop.app.submit(shop.send("bob"), connection=conn, key=Key("a"))).id == first.id


@pytest.fixture
def plain(url: str) -> Callable[..., AbstractContextManager[Any]]:
    """Opens a connection of a blocking driver to the database."""
    address = make_url(url)

    def connect(*, autocommit: bool = False) -> AbstractContextManager[Any]:
        if address.get_backend_name() == "postgresql":
            return psycopg.connect(
                address.set(drivername="postgresql").render_as_string(False), autocommit=autocommit
            )
        return closing(
            pymysql.connect(
                host=address.host,
                port=address.port or 0,
                user=address.username,
                password=address.password or "",
                database=address.database,
                autocommit=autocommit,
            )
        )

    return connect


async def test_a_plain_connection_commits_a_call_too(
    shop: Shop, plain: Callable[..., AbstractContextManager[Any]]
) -> None:
    with plain() as connection:
        task = await shop.app.submit(shop.send("ada"), connection=connection)
        assert sum((await shop.app.counts()).values()) == 0
        connection.commit()
        async with shop.app.worker(), asyncio.timeout(20):
            assert await task == "sent to ada"
    with plain(autocommit=True) as connection, pytest.raises(UsageError, match="no transaction open"):
        await shop.app.submit(shop.send("ada"), connection=connection)


async def test_another_database_is_refused(shop: Shop, driver: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("postgresql" if "postgresql" in shop.url else "mariadb")
    other = server.database()
    scheme = shop.url.partition("://")[0]
    theirs = App("other", "memory://").database(f"{scheme}://{other.partition('://')[2]}")
    try:
        async with theirs.connection() as conn:
            with pytest.raises(UsageError, match="a transaction reaches one database"):
                await shop.app.submit(shop.send("ada"), connection=conn)
        await theirs.engine.dispose()
    finally:
        server.drop(other)
    assert driver
