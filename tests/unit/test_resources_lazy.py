"""`LazyConnection`: the whole of `AsyncConnection` works on one that nobody has connected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncTransaction

from everloop.resources.database import Database
from everloop.resources.lazy import LazyConnection
from tests.helpers.databases import COUNT, INSERT, database, names

#: What SQLAlchemy's connection has besides what is tested below, and why it needs no connection.
UNCHANGED = {
    "aclose",  # calls close()
    "connection",  # always refused, with what to call instead
    "engine",
    "sync_connection",  # None until it is started
    "sync_engine",
    "start",
}


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with database(tmp_path / "shop.db") as opened:
        yield opened


async def execute(conn: AsyncConnection) -> Any:
    return (await conn.execute(select(1))).scalar()


async def exec_driver_sql(conn: AsyncConnection) -> Any:
    return (await conn.exec_driver_sql("select 1")).scalar()


async def scalar(conn: AsyncConnection) -> Any:
    return await conn.scalar(select(1))


async def scalars(conn: AsyncConnection) -> Any:
    return (await conn.scalars(select(1))).one()


async def stream(conn: AsyncConnection) -> Any:
    result = await conn.stream(select(1))
    return (await result.one())[0]


async def stream_in_a_block(conn: AsyncConnection) -> Any:
    async with conn.stream(select(1)) as result:
        return [row[0] async for row in result].pop()


async def stream_scalars(conn: AsyncConnection) -> Any:
    async with conn.stream_scalars(select(1)) as result:
        return await result.one()


async def run_sync(conn: AsyncConnection) -> Any:
    return await conn.run_sync(lambda sync: sync.scalar(select(1)))


async def get_raw_connection(conn: AsyncConnection) -> Any:
    raw = await conn.get_raw_connection()
    return int(raw.driver_connection is not None)


async def execution_options(conn: AsyncConnection) -> Any:
    assert await conn.execution_options(logging_token="a") is conn
    return await scalar(conn)


async def get_isolation_level(conn: AsyncConnection) -> Any:
    return int(await conn.get_isolation_level() == "SERIALIZABLE")


async def begin(conn: AsyncConnection) -> Any:
    transaction = await conn.begin()
    assert isinstance(transaction, AsyncTransaction) and transaction.is_active
    assert conn.in_transaction()
    value = await scalar(conn)
    await transaction.rollback()
    return value


async def begin_nested(conn: AsyncConnection) -> Any:
    async with conn.begin_nested() as savepoint:
        assert savepoint.nested and conn.in_nested_transaction()
        return await scalar(conn)


USES = [
    execute,
    exec_driver_sql,
    scalar,
    scalars,
    stream,
    stream_in_a_block,
    stream_scalars,
    run_sync,
    get_raw_connection,
    execution_options,
    get_isolation_level,
    begin,
    begin_nested,
]


@pytest.mark.parametrize("use", USES)
async def test_the_first_use_starts_it(db: Database, use: Any) -> None:
    async with db.connection() as conn:
        assert conn.sync_connection is None
        assert await use(conn) == 1
        assert conn.sync_connection is not None
        assert await use(conn) == 1 if use not in (begin, begin_nested) else True

    assert db.statistics().in_use == 0


async def test_what_cannot_wait_answers_for_an_unused_connection(db: Database) -> None:
    async with db.connection() as conn:
        answers = [
            conn.in_transaction(),
            conn.in_nested_transaction(),
            conn.get_transaction(),
            conn.get_nested_transaction(),
            conn.closed,
            conn.invalidated,
            conn.info,
        ]
        assert answers == [False, False, None, None, False, False, {}]
        assert conn.dialect.name == "sqlite"
        assert conn.default_isolation_level == db.engine.dialect.default_isolation_level
        await conn.commit()
        await conn.rollback()
        await conn.invalidate()
        assert conn.sync_connection is None

        await conn.execute(COUNT)
        assert conn.in_transaction() and conn.get_transaction() is not None
        assert conn.get_nested_transaction() is None and not conn.in_nested_transaction()
        assert not conn.closed and not conn.invalidated
        conn.info["seen"] = True
        assert conn.info["seen"]
        await conn.invalidate()
        assert conn.invalidated


def test_nothing_of_sqlalchemys_connection_is_forgotten() -> None:
    """A release of SQLAlchemy that adds to its connection is seen here."""
    public = {name for name in dir(AsyncConnection) if not name.startswith("_")}
    ours = set(vars(LazyConnection))

    assert public - ours <= UNCHANGED, "these need a connection that may not be there"


async def test_it_may_be_started_by_hand_and_closed_early(db: Database) -> None:
    async with db.connection() as conn:
        assert await conn is conn
        assert await conn.start() is conn
        assert db.statistics().in_use == 1
        await conn.aclose()
        assert conn.closed
        assert db.statistics().in_use == 0
        with pytest.raises(InvalidRequestError):
            await conn.execute(COUNT)


async def test_two_first_statements_start_it_once(db: Database) -> None:
    async with db.connection() as conn:
        await asyncio.gather(*[conn.execute(COUNT) for _ in range(5)])
        assert db.statistics().in_use == 1

    assert db.statistics().in_use == 0


async def test_a_start_that_is_cancelled_takes_nothing(db: Database) -> None:
    async with db.connection() as conn:
        for steps in range(12):
            task = asyncio.create_task(conn.execute(COUNT))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await conn.rollback()

    assert db.statistics().in_use == 0


async def test_a_transaction_object_can_be_used_before_and_after_it_is_begun(
    db: Database, tmp_path: Path
) -> None:
    async with db.connection() as conn:
        transaction = conn.begin()
        async with transaction:
            await conn.execute(INSERT, {"name": "undone"})
            await transaction.rollback()
        async with conn.begin():
            await conn.execute(INSERT, {"name": "kept"})

    assert names(tmp_path / "shop.db") == ["kept"]


async def test_autocommit_is_the_users_to_choose(db: Database, tmp_path: Path) -> None:
    async with db.connection() as conn:
        await conn.execution_options(isolation_level="AUTOCOMMIT")
        await conn.execute(text("insert into pages values ('at once')"))
        assert names(tmp_path / "shop.db") == ["at once"]
    async with db.connection() as conn:
        await conn.execute(text("insert into pages values ('undone')"))
        await conn.rollback()

    assert names(tmp_path / "shop.db") == ["at once"]
