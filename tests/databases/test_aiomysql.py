"""`everloop.aiomysql` does what aiomysql does: each test runs with either, where both have it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import aiomysql as plain  # type: ignore[import-untyped]  # it has no types
import pytest

from everloop import aiomysql
from everloop._core.errors import ClosedError, OptionError, UsageError, WouldDeadlock
from everloop.resources import held
from everloop.resources.engine import PoolTimeout
from tests.helpers.pools import becomes, connected


@pytest.fixture(params=[plain, aiomysql], ids=["aiomysql", "everloop.aiomysql"])
def module(request: pytest.FixtureRequest) -> ModuleType:
    """The one and the other."""
    assert isinstance(request.param, ModuleType)
    return request.param


@pytest.fixture
def where(mariadb_url: str) -> dict[str, Any]:
    """The arguments of a pool on a fresh database."""
    parts = urlsplit(mariadb_url)
    return {
        "host": parts.hostname,
        "port": parts.port,
        "user": parts.username,
        "password": parts.password,
        "db": parts.path[1:],
    }


@asynccontextmanager
async def table(module: Any, where: dict[str, Any], **options: Any) -> AsyncIterator[Any]:
    """A pool on a table of two pages."""
    async with module.create_pool(**where, **options) as pool:
        async with pool.acquire() as conn, conn.cursor() as cur:
            await cur.execute("create table pages (id int auto_increment primary key, name varchar(100))")
            await cur.execute("insert into pages (name) values ('first'), ('second')")
            await conn.commit()
        yield pool


# -- as in aiomysql --------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_acquire_cursor_execute_fetch(module: Any, where: dict[str, Any]) -> None:
    async with table(module, where) as pool, pool.acquire() as conn, conn.cursor() as cur:
        assert await cur.execute("select id, name from pages where id = %s", (2,)) == 1
        assert cur.rowcount == 1
        assert [column[0] for column in cur.description] == ["id", "name"]
        assert await cur.fetchone() == (2, "second")
        assert await cur.fetchone() is None

        await cur.execute("select id from pages order by id")
        assert list(await cur.fetchmany(1)) == [(1,)]
        assert list(await cur.fetchall()) == [(2,)]


async def test_the_forms_without_async_with(module: Any, where: dict[str, Any]) -> None:
    pool = await module.create_pool(loop=asyncio.get_running_loop(), **where)
    conn = await pool.acquire()
    cur = await conn.cursor()
    await cur.execute("select 42")
    (answer,) = await cur.fetchone()
    await cur.close()
    pool.release(conn)
    pool.close()
    await pool.wait_closed()

    assert answer == 42
    assert pool.closed


async def test_a_release_may_be_awaited(module: Any, where: dict[str, Any]) -> None:
    async with module.create_pool(**where) as pool:
        conn = await pool.acquire()
        assert (pool.size, pool.freesize) == (1, 0)
        assert await pool.release(conn) is None
        assert (pool.size, pool.freesize) == (1, 1)


async def test_commit_rollback_and_begin(module: Any, where: dict[str, Any]) -> None:
    async with table(module, where) as pool:
        async with pool.acquire() as conn, conn.cursor() as cur:
            await conn.begin()
            await cur.execute("insert into pages (name) values ('third')")
            assert cur.lastrowid == 3
            await conn.commit()
            await cur.execute("insert into pages (name) values ('undone')")
            await conn.rollback()
            await cur.execute("insert into pages (name) values ('left')")

        async with pool.acquire() as conn, conn.cursor() as cur:
            await cur.execute("select name from pages order by id")
            assert [name for (name,) in await cur.fetchall()] == ["first", "second", "third"]


async def test_autocommit(module: Any, where: dict[str, Any]) -> None:
    async with table(module, where, autocommit=True) as pool:
        async with pool.acquire() as conn, conn.cursor() as cur:
            assert conn.get_autocommit()
            await cur.execute("insert into pages (name) values ('third')")

        async with pool.acquire() as conn, conn.cursor() as cur:
            await cur.execute("select count(*) from pages")
            assert await cur.fetchone() == (3,)


async def test_an_update_counts_the_rows_that_it_has_changed(module: Any, where: dict[str, Any]) -> None:
    async with table(module, where) as pool, pool.acquire() as conn, conn.cursor() as cur:
        assert await cur.execute("update pages set name = 'first'") == 1


async def test_dict_cursors_and_many_rows(module: Any, where: dict[str, Any]) -> None:
    async with table(module, where) as pool, pool.acquire() as conn, conn.cursor(module.DictCursor) as cur:
        await cur.executemany("insert into pages (name) values (%s)", [("third",), ("fourth",)])
        assert cur.rowcount == 2
        await cur.execute("select id, name from pages where id > %s order by id", 3)
        assert list(await cur.fetchall()) == [{"id": 4, "name": "fourth"}]
        assert [row async for row in cur] == []


async def test_rows_that_are_read_one_by_one(module: Any, where: dict[str, Any]) -> None:
    async with table(module, where) as pool, pool.acquire() as conn, conn.cursor(module.SSCursor) as cur:
        await cur.execute("select name from pages order by id")
        assert [row async for row in cur] == [("first",), ("second",)]


async def test_errors_are_those_of_aiomysql(module: Any, where: dict[str, Any]) -> None:
    async with table(module, where) as pool, pool.acquire() as conn, conn.cursor() as cur:
        with pytest.raises(plain.ProgrammingError) as caught:
            await cur.execute("select nothing from nowhere")
        assert caught.value.args[0] == 1146
        with pytest.raises(plain.IntegrityError):
            await cur.execute("insert into pages (id) values (1)")


async def test_the_sizes(module: Any, where: dict[str, Any]) -> None:
    async with module.create_pool(minsize=2, maxsize=3, **where) as pool:
        assert (pool.minsize, pool.maxsize, pool.size, pool.freesize) == (2, 3, 2, 2)
        held_now = [await pool.acquire() for _ in range(3)]
        assert (pool.size, pool.freesize) == (3, 0)
        for conn in held_now:
            await pool.release(conn)
        assert (pool.size, pool.freesize) == (3, 3)
    async with module.create_pool(minsize=0, maxsize=0, **where) as pool:
        assert (pool.minsize, pool.maxsize, pool.size) == (0, None, 0)
        held_now = [await pool.acquire() for _ in range(12)]
        assert pool.size == 12
        for conn in held_now:
            await pool.release(conn)


async def test_a_closed_pool_gives_nothing(module: Any, where: dict[str, Any]) -> None:
    pool = await module.create_pool(**where)
    with pytest.raises(RuntimeError):
        await pool.wait_closed()
    conn = await pool.acquire()
    pool.close()
    with pytest.raises(RuntimeError):
        await pool.acquire()
    closing = asyncio.create_task(pool.wait_closed())
    await asyncio.sleep(0)
    assert not closing.done()

    await pool.release(conn)
    await closing

    assert pool.closed
    assert conn.closed


async def test_terminate_closes_what_is_in_use(module: Any, where: dict[str, Any]) -> None:
    pool = await module.create_pool(**where)
    conn = await pool.acquire()

    pool.terminate()
    await pool.release(conn)
    await pool.wait_closed()

    assert conn.closed
    assert pool.closed


async def test_a_wrong_password_is_seen_at_once(module: Any, where: dict[str, Any]) -> None:
    with pytest.raises(plain.OperationalError) as caught:
        await module.create_pool(**where | {"password": "wrong-one"})

    assert caught.value.args[0] == 1045
    assert "wrong-one" not in str(caught.value)


# -- beyond ----------------------------------------------------------------------------------------------


async def test_a_refusal_says_what_to_do(where: dict[str, Any]) -> None:
    with pytest.raises(aiomysql.OperationalError) as caught:
        await aiomysql.create_pool(**where | {"password": "wrong-one"})

    code, message = caught.value.args
    assert code == 1045
    assert message.startswith(f"cannot connect to mysql+aiomysql://{where['user']}@127.0.0.1:")
    assert "Check the user and the password" in message


async def test_tls_that_was_asked_for_is_not_left_out(where: dict[str, Any]) -> None:
    with pytest.raises(aiomysql.OperationalError, match="TLS was asked for, and the connection is not made"):
        await aiomysql.create_pool(**where, ssl=True)


async def test_waiting_ends(where: dict[str, Any]) -> None:
    async with aiomysql.create_pool(maxsize=1, pool_timeout=0.05, **where) as pool, pool.acquire():
        with pytest.raises(PoolTimeout, match=r"or give create_pool\(\.\.\.\) a larger maxsize$"):
            await pool.acquire()


async def test_a_transaction_that_is_left_open_does_not_block_the_next_waiter(where: dict[str, Any]) -> None:
    async with table(aiomysql, where, maxsize=1) as pool:
        conn = await pool.acquire()
        async with conn.cursor() as cur:
            await cur.execute("insert into pages (name) values ('left')")
        waiting = asyncio.ensure_future(pool.acquire())
        pool.release(conn)

        async with asyncio.timeout(5):
            again = await waiting
            async with again.cursor() as cur:
                await cur.execute("select count(*) from pages")
                assert await cur.fetchone() == (2,)
        await pool.release(again)


async def test_the_next_user_gets_the_pools_autocommit(where: dict[str, Any]) -> None:
    async with table(aiomysql, where, maxsize=1) as pool:
        async with pool.acquire() as conn, conn.cursor() as cur:
            await cur.execute("insert into pages (name) values ('left')")
            await cur.execute("set autocommit = 0")
            await conn.autocommit(False)
        async with pool.acquire() as conn:
            await conn.autocommit(True)
            await conn.begin()
            async with conn.cursor() as cur:
                await cur.execute("insert into pages (name) values ('left too')")
        async with pool.acquire() as conn, conn.cursor() as cur:
            assert not conn.get_autocommit()
            await cur.execute("select count(*) from pages")
            assert await cur.fetchone() == (2,)


async def test_a_half_read_result_is_not_handed_on(where: dict[str, Any]) -> None:
    async with table(aiomysql, where, maxsize=1) as pool:
        conn = await pool.acquire()
        cur = await conn.cursor(aiomysql.SSCursor)
        await cur.execute("select name from pages")
        await cur.fetchone()
        await pool.release(conn)

        async with pool.acquire() as other, other.cursor() as cur:
            await cur.execute("select 42")
            assert await cur.fetchone() == (42,)
        assert conn.closed


async def test_a_connection_that_its_user_has_closed_is_replaced(where: dict[str, Any]) -> None:
    async with aiomysql.create_pool(maxsize=1, **where) as pool:
        async with pool.acquire() as conn:
            conn.close()
        async with pool.acquire() as other, other.cursor() as cur:
            await cur.execute("select 42")
            assert await cur.fetchone() == (42,)


async def test_what_was_given_back_cannot_be_given_back_again(where: dict[str, Any]) -> None:
    async with aiomysql.create_pool(**where) as pool:
        conn = await pool.acquire()
        await pool.release(conn)
        with pytest.raises(UsageError, match=r"was not taken from .*, or has been given back already"):
            pool.release(conn)


async def test_a_held_connection_is_known_to_whoever_would_wait_for_a_call(where: dict[str, Any]) -> None:
    from everloop import App

    app = App("held", "memory://")

    @app.task
    async def nothing() -> None:
        return None

    async with aiomysql.create_pool(**where) as pool, app.worker():
        async with pool.acquire():
            assert "a connection on mysql+aiomysql://" in str(held.held())
            with pytest.raises(WouldDeadlock):
                await nothing()
        assert held.held() is None
        await nothing()


async def test_a_closed_pool_is_a_closed_error(where: dict[str, Any]) -> None:
    pool = await aiomysql.create_pool(**where)
    pool.close()
    with pytest.raises(ClosedError, match="is closed: no connection can be taken from it"):
        await pool.acquire()
    await pool.wait_closed()


def test_a_pool_that_nobody_closes_is_closed_with_its_loop(mariadb_url: str, where: dict[str, Any]) -> None:
    url = mariadb_url.replace("mysql://", "mysql+aiomysql://")
    before = asyncio.run(connected(url))
    pools: list[aiomysql.Pool] = []

    async def main() -> None:
        pools.append(await aiomysql.create_pool(minsize=2, **where))
        await pools[0].acquire()

    asyncio.run(main())

    assert pools[0].closed
    asyncio.run(becomes(before, lambda: connected(url)))


def test_another_loop_is_refused(where: dict[str, Any]) -> None:
    async def make() -> aiomysql.Pool:
        return await aiomysql.create_pool(**where)

    async def use(pool: aiomysql.Pool) -> None:
        await pool.acquire()

    first = asyncio.new_event_loop()
    pool = first.run_until_complete(make())
    with pytest.raises(UsageError, match=r"call create_pool\(\) in each, for example in an @app.resource"):
        asyncio.run(use(pool))
    first.run_until_complete(pool.leave())
    first.run_until_complete(first.shutdown_asyncgens())
    first.close()


async def test_a_forked_child_is_refused(where: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    async with aiomysql.create_pool(**where) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            with pytest.raises(UsageError, match="belongs to the process and the event loop that created it"):
                await pool.acquire()


async def test_a_pool_that_cannot_be_filled_leaves_nothing(where: dict[str, Any]) -> None:
    with pytest.raises(aiomysql.OperationalError):
        await aiomysql.create_pool(**where | {"db": "nowhere"})

    assert aiomysql._pools.here()._made == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"minsize": 3, "maxsize": 2}, "create_pool() takes 0 <= minsize <= maxsize, or maxsize=0 for no "),
        ({"minsize": -1}, "create_pool() takes 0 <= minsize <= maxsize, or maxsize=0 for no limit, not mi"),
        ({"database": "shop"}, "create_pool() takes what aiomysql.connect takes, but got an unexpected ke"),
    ],
)
async def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        await aiomysql.create_pool(**arguments)
    assert str(caught.value).startswith(message)


async def test_what_there_is_not_names_what_there_is(where: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"take a connection from a pool, `async with pool\.acquire"):
        aiomysql.connect(**where)
    with pytest.raises(AttributeError, match=r"has no `sa`: app\.database"):
        _ = aiomysql.sa
    async with aiomysql.create_pool(**where) as pool:
        with pytest.raises(UsageError, match=r"has no pool\.clear\(\): broken connections are replaced"):
            pool.clear()
        with pytest.raises(UsageError, match=r"has no `with pool`; write `async with pool\.acquire"):
            pool.__enter__()
        with pytest.raises(UsageError, match="has no `with await pool as conn`; write `async with"):
            await pool
