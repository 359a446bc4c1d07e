"""The global pool on real servers: one for tasks and handlers, whole again after whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from everloop import App, Use
from everloop.resources.database import Database
from everloop.resources.engine import PoolTimeout
from everloop.resources.statistics import PoolStatistics
from tests.helpers.pools import ask, becomes, connected, is_mysql, opened
from tests.helpers.processes import run_program

TABLE = text("create table pages (name varchar(100))")
INSERT = text("insert into pages values (:name)")
NAMES = text("select name from pages")
ONE = text("select 1")


async def test_a_select_and_an_insert_at_once(db: Database, url: str) -> None:
    async with db.transaction() as conn:
        await conn.execute(TABLE)

    async def select() -> Any:
        async with db.connection() as conn:
            return (await conn.execute(text("select 42"))).scalar_one()

    async def insert() -> None:
        async with db.connection() as conn:
            await conn.execute(INSERT, {"name": "first"})
            await conn.commit()

    row, _ = await asyncio.gather(select(), insert())

    assert row == 42
    assert await ask(url, "select name from pages") == "first"


async def test_tasks_and_handlers_share_one_engine(url: str) -> None:
    app = App("shop", "memory://")
    db = app.database(url)
    engines: list[AsyncEngine] = []

    @app.task
    async def save(name: str, conn: AsyncConnection = Use(db.transaction)) -> None:
        engines.append(db.engine)
        await conn.execute(INSERT, {"name": name})

    async with app.worker(), asyncio.timeout(20):
        async with db.transaction() as conn:
            await conn.execute(TABLE)
        await save("ada")
        async with db.connection() as conn:
            assert (await conn.execute(NAMES)).scalar_one() == "ada"

        assert engines == [db.engine]
        assert db.statistics() == PoolStatistics(size=1)


async def test_what_a_block_does_not_commit_is_rolled_back(db: Database, url: str) -> None:
    async with db.transaction() as conn:
        await conn.execute(TABLE)

    async with db.connection() as conn:
        await conn.execute(INSERT, {"name": "left"})
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block ends with it
        async with db.transaction() as conn:
            await conn.execute(INSERT, {"name": "failed"})
            _ = 1 // 0

    assert await ask(url, "select count(*) from pages") == 0


async def test_waiting_for_a_connection_ends(pools: Callable[..., Database]) -> None:
    db = pools(pool_size=1, pool_timeout=0.05)

    async def second() -> None:
        async with db.connection() as conn:
            await conn.execute(ONE)

    async with db.connection() as conn:
        await conn.execute(ONE)
        with pytest.raises(PoolTimeout) as caught:
            await second()

    assert str(caught.value) == (
        "no connection of the pool was free within 0.05 s: all 1 are in use. Hold connections for a shorter "
        "time (leave the `async with` block earlier), or give app.database(...) a larger pool_size"
    )
    assert isinstance(caught.value, TimeoutError)
    assert db.statistics() == PoolStatistics(size=1, timeouts=1)


async def test_ten_connections_and_no_more(pools: Callable[..., Database], url: str) -> None:
    db = pools()
    before = await connected(url)
    together = asyncio.Barrier(10)

    async def hold() -> None:
        async with db.connection() as conn:
            await conn.execute(ONE)
            await together.wait()

    async with asyncio.timeout(20):
        await asyncio.gather(*[hold() for _ in range(20)])

    assert db.statistics() == PoolStatistics(size=10)
    await becomes(before + 10, lambda: connected(url))


async def test_a_pool_of_the_users_own_kind_is_left_as_it_is(pools: Callable[..., Database]) -> None:
    db = pools(poolclass=NullPool)

    async with db.connection() as conn:
        assert (await conn.execute(ONE)).scalar_one() == 1

    assert isinstance(db.engine.pool, NullPool)


async def test_a_connection_that_the_server_has_closed_is_replaced_unseen(db: Database, url: str) -> None:
    async with db.connection() as conn:
        query = "select connection_id()" if is_mysql(url) else "select pg_backend_pid()"
        number = (await conn.execute(text(query))).scalar_one()

    if is_mysql(url):
        await ask(url, "select 1 from information_schema.processlist where id = :id", id=number)
        await kill(url, number)
    else:
        await ask(url, "select pg_terminate_backend(:id)", id=number)

    async with db.connection() as conn:
        assert (await conn.execute(text(query))).scalar_one() != number
    assert db.statistics() == PoolStatistics(size=1)


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"], indirect=True)
async def test_a_connection_that_its_driver_has_closed_is_replaced_unseen(db: Database) -> None:
    async with db.connection() as conn:
        await conn.execute(ONE)
        raw: Any = (await conn.get_raw_connection()).driver_connection
    raw._close_on_cancel()  # as a rollback that is cancelled leaves it

    async with db.connection() as conn:
        assert (await conn.execute(ONE)).scalar_one() == 1


async def kill(url: str, number: int) -> None:
    other = opened(url)
    async with other.db.connection() as conn:
        await conn.exec_driver_sql(f"kill {number}")
    await other.close()


def test_each_loop_has_an_engine_of_its_own_and_leaves_no_connection(url: str) -> None:
    app = App("loops", "memory://")
    db = app.database(url)
    seen: list[AsyncEngine] = []

    async def use() -> None:
        async with db.connection() as conn:
            await conn.execute(ONE)
        seen.append(db.engine)

    before = asyncio.run(connected(url))
    asyncio.run(use())
    asyncio.run(use())

    assert seen[0] is not seen[1]
    asyncio.run(becomes(before, lambda: connected(url)))


def test_a_forked_child_opens_its_own_and_leaves_its_parents_alone(url: str, tmp_path: Path) -> None:
    program = tmp_path / "forks.py"
    program.write_text(
        "import asyncio, os\n"
        "from sqlalchemy import text\n"
        "from everloop import App\n"
        "app = App('forks', 'memory://')\n"
        f"db = app.database({url!r})\n"
        f"NUMBER = text({'select connection_id()' if is_mysql(url) else 'select pg_backend_pid()'!r})\n"
        "async def number():\n"
        "    async with db.connection() as conn:\n"
        "        return (await conn.execute(NUMBER)).scalar_one()\n"
        "loop = asyncio.new_event_loop()\n"
        "mine = loop.run_until_complete(number())\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    asyncio.set_event_loop(None)\n"
        "    asyncio.events._set_running_loop(None)\n"
        "    os._exit(0 if asyncio.run(number()) != mine else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert loop.run_until_complete(number()) == mine\n"
        "loop.run_until_complete(app._close_resources())\n"
        "loop.close()\n",
        encoding="utf-8",
    )

    run_program(program, folder=tmp_path, env={"PYTHONWARNINGS": "ignore::DeprecationWarning"}).checked()
