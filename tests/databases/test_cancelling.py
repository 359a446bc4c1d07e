"""What a cancelled query leaves: nothing on the server, nothing committed, and a pool that works on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import PendingRollbackError

from everloop import aiomysql
from everloop.resources.abandoned import Abandoned
from everloop.resources.database import Database
from tests.helpers.pools import RUNNING, SOON_S, ask, becomes, is_mysql, opened, running, sleeping
from tests.helpers.processes import run_program

SLEEPING = "select%sleep(60)%"
TABLE = text("create table pages (name varchar(100))")
INSERT = text("insert into pages values ('left')")

mysql_only = pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"], indirect=True)


async def cancel_once_it_runs(task: asyncio.Task[Any], url: str) -> None:
    await becomes(1, lambda: running(url, SLEEPING))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("way", ["engine", "connection", "transaction", "session"])
async def test_a_cancelled_query_is_soon_gone_from_the_server(db: Database, url: str, way: str) -> None:
    async def query() -> None:
        scope: Any = db.engine.connect if way == "engine" else getattr(db, way)
        async with scope() as conn:
            await conn.execute(text(sleeping(url, "60")), {"n": 1})

    await cancel_once_it_runs(asyncio.create_task(query()), url)

    await becomes(0, lambda: running(url, SLEEPING))
    assert db.statistics().in_use == 0


async def test_a_query_that_runs_into_a_timeout_is_gone_too(db: Database, url: str) -> None:
    async with db.connection() as conn:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await conn.execute(text(sleeping(url, "60")), {"n": 1})

    await becomes(0, lambda: running(url, SLEEPING))


async def test_a_cancelled_write_lets_go_of_its_locks(db: Database, url: str) -> None:
    async with db.transaction() as conn:
        await conn.execute(text("create table stock (id int primary key, n int)"))
        await conn.execute(text("insert into stock values (1, 1)"))

    async def hold() -> None:
        async with db.transaction() as conn:
            await conn.execute(text("update stock set n = 2 where id = 1"))
            await conn.execute(text(sleeping(url, "60")), {"n": 1})

    await cancel_once_it_runs(asyncio.create_task(hold()), url)

    async with asyncio.timeout(SOON_S), db.transaction() as conn:
        await conn.execute(text("update stock set n = n + 2 where id = 1"))
    assert await ask(url, "select n from stock") == 3


@pytest.mark.parametrize("way", ["transaction", "session"])
async def test_a_transaction_with_a_cancelled_statement_cannot_be_committed_by_mistake(
    db: Database, url: str, way: str
) -> None:
    async with db.transaction() as conn:
        await conn.execute(TABLE)

    async def goes_on_after_a_timeout() -> None:
        async with getattr(db, way)() as conn:
            await conn.execute(INSERT)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await conn.execute(text(sleeping(url, "60")), {"n": 1})

    with pytest.raises(PendingRollbackError):
        await goes_on_after_a_timeout()

    assert await ask(url, "select count(*) from pages") == 0


async def test_who_is_cancelled_while_waiting_for_a_connection_takes_none(
    pools: Callable[..., Database],
) -> None:
    db = pools(pool_size=1)

    async def wait() -> None:
        async with db.connection() as conn:
            await conn.execute(text("select 1"))

    async with db.connection() as conn:
        await conn.execute(text("select 1"))
        waiting = [asyncio.create_task(wait()) for _ in range(3)]
        while db.statistics().waiting < 3:
            await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[1].cancel()

    await asyncio.gather(*waiting, return_exceptions=True)
    assert [task.cancelled() for task in waiting] == [True, True, False]
    assert (db.statistics().waiting, db.statistics().in_use) == (0, 0)


async def test_at_the_end_of_the_program_nothing_goes_on_on_the_server(url: str, tmp_path: Path) -> None:
    program = tmp_path / "ends.py"
    program.write_text(
        "import asyncio\n"
        "from sqlalchemy import text\n"
        "from everloop import App\n"
        "app = App('ends', 'memory://')\n"
        f"db = app.database({url!r})\n"
        "async def query():\n"
        "    async with db.connection() as conn:\n"
        f"        await conn.execute(text({sleeping(url, '60').replace(':n', '1')!r}))\n"
        "async def main():\n"
        "    task = asyncio.create_task(query())\n"
        "    async with db.engine.connect() as conn:\n"
        f"        while not await conn.scalar(text({RUNNING[is_mysql(url)]!r}), {{'what': {SLEEPING!r}}}):\n"
        "            await conn.rollback()\n"
        "asyncio.run(main())\n",
        encoding="utf-8",
    )

    ran = await asyncio.to_thread(run_program, program, folder=tmp_path, env={})

    # MySQL says of the test's own query that there will be another way to ask, and asyncmy passes it on.
    said = [line for line in ran.checked().err.splitlines() if "PROCESSLIST' is deprecated" not in line]
    assert said == []
    await becomes(0, lambda: running(url, SLEEPING))


# -- KILL ------------------------------------------------------------------------------------------------


@mysql_only
async def test_behind_a_balancer_nobody_else_is_killed(db: Database, url: str) -> None:
    async with db.connection() as conn:
        await conn.execute(text("select 1"))
        raw: Any = (await conn.get_raw_connection()).driver_connection
        raw.everloop_server = ("another server", 3306, 1)  # with the same number
        query = asyncio.create_task(conn.execute(text(sleeping(url, "1")), {"n": 7}))
        await becomes(1, lambda: running(url, "select%sleep(1)%"))

        abandoned = db._pool()._connector.abandoned  # type: ignore[union-attr]
        assert abandoned is not None
        abandoned.add(raw)
        await abandoned.finish()

        assert (await query).one()[0] == 7


async def test_a_server_that_is_away_is_told_once_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    async def nowhere() -> Any:
        raise ConnectionRefusedError("nobody answers")

    class Closed:
        everloop_server = ("here", 3306, 1)

        def thread_id(self) -> int:
            return 7

    abandoned = Abandoned(nowhere)
    with caplog.at_level(logging.WARNING):
        abandoned.add(Closed())
        await abandoned.finish()
        await abandoned.finish()

    assert caplog.messages == [
        "everloop: 1 cancelled statement(s) may run on, on the database server: nobody answers"
    ]


async def test_a_thread_that_has_ended_already_is_no_error(
    mariadb_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = mariadb_url.replace("mysql://", "mysql+aiomysql://")
    pool = opened(url)
    async with pool.db.connection() as conn:
        await conn.execute(text("select 1"))
        raw: Any = (await conn.get_raw_connection()).driver_connection
        abandoned = pool.db._pool()._connector.abandoned  # type: ignore[union-attr]
        assert abandoned is not None
        raw.close()
        await becomes(
            0,
            lambda: ask(
                url, "select count(*) from information_schema.processlist where id = :id", id=raw.thread_id()
            ),
        )
        abandoned.add(raw)
        await abandoned.finish()
        await conn.invalidate()
    await pool.close()

    assert caplog.messages == []


async def test_a_cancelled_query_of_everloop_aiomysql_is_gone_and_the_next_waiter_is_served(
    mariadb_url: str,
) -> None:
    url = mariadb_url.replace("mysql://", "mysql+aiomysql://")
    user, _, place = mariadb_url.removeprefix("mysql://").rpartition("@")
    name, _, password = user.partition(":")
    host, _, port = place.partition("/")[0].partition(":")
    async with aiomysql.create_pool(
        host=host, port=int(port), user=name, password=password, db=place.partition("/")[2], maxsize=1
    ) as pool:

        async def query(statement: str) -> Any:
            async with pool.acquire() as conn, conn.cursor() as cur:
                await cur.execute(statement)
                return await cur.fetchone()

        first = asyncio.create_task(query("select 1, sleep(60)"))
        await becomes(1, lambda: running(url, SLEEPING))
        second = asyncio.create_task(query("select 2"))
        first.cancel()

        async with asyncio.timeout(SOON_S):
            assert await second == (2,)
        await becomes(0, lambda: running(url, SLEEPING))
        assert first.cancelled()
