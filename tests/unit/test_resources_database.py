"""The global pool: what its scopes take, begin, commit and give back, on real SQLite files."""

# ruff: noqa: PT012 - a scope raises at the end of its block, so the whole block is expected to

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, PendingRollbackError, ResourceClosedError
from sqlalchemy.exc import TimeoutError as SqlalchemyTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from everloop._core.errors import ClosedError, ConfigError, OptionError, UsageError, WouldDeadlock
from everloop.resources.database import Database
from everloop.resources.resource import ResourcePool
from everloop.resources.statistics import PoolStatistics
from tests.helpers.databases import COUNT, INSERT, TABLE, database, names
from tests.helpers.processes import run_program


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
async def db(file: Path) -> AsyncIterator[Database]:
    async with database(file) as opened:
        yield opened


def free(db: Database) -> bool:
    return db.statistics().in_use == 0


async def add(conn: AsyncConnection, name: str) -> None:
    await conn.execute(INSERT, {"name": name})


# -- connection ------------------------------------------------------------------------------------------


@pytest.mark.both_loops
async def test_a_connection_takes_nothing_from_the_pool_until_its_first_statement(db: Database) -> None:
    async with db.connection() as conn:
        assert isinstance(conn, AsyncConnection)
        assert free(db)
        assert (await conn.execute(COUNT)).scalar_one() == 0
        assert db.statistics().in_use == 1

    assert free(db)


async def test_what_a_connection_commits_stays_and_the_rest_is_rolled_back(db: Database, file: Path) -> None:
    async with db.connection() as conn:
        await add(conn, "kept")
        await conn.commit()
        await add(conn, "undone")
        await conn.rollback()
        await add(conn, "left")

    assert names(file) == ["kept"]


async def test_a_select_and_an_insert_at_once_through_the_pool(db: Database, file: Path) -> None:
    async def select() -> Any:
        async with db.connection() as conn:
            return (await conn.execute(text("select 42"))).fetchone()

    async def insert() -> None:
        async with db.connection() as conn:
            await add(conn, "first")
            await conn.commit()

    row, _ = await asyncio.gather(select(), insert())

    assert tuple(row) == (42,)
    assert names(file) == ["first"]


async def test_reading_then_writing_does_not_fail_when_another_has_written_since(
    db: Database, file: Path
) -> None:
    async with db.connection() as conn:
        assert (await conn.execute(COUNT)).scalar_one() == 0
        async with db.transaction() as other:
            await add(other, "between")
        await add(conn, "after")
        await conn.commit()

    assert names(file) == ["between", "after"]


async def test_readers_do_not_wait_for_a_writer(db: Database) -> None:
    async with db.transaction() as writer:
        await add(writer, "unseen")
        async with asyncio.timeout(5), db.connection() as reader:
            assert (await reader.execute(COUNT)).scalar_one() == 0


async def test_after_begin_what_a_connection_reads_stays_true(db: Database, file: Path) -> None:
    async def append() -> None:
        async with db.connection() as conn, conn.begin():
            count = (await conn.execute(COUNT)).scalar_one()
            await asyncio.sleep(0)
            await add(conn, str(count))

    await asyncio.gather(*[append() for _ in range(8)])

    assert names(file) == [str(n) for n in range(8)]


async def test_savepoints_roll_back_apart(db: Database, file: Path) -> None:
    async with db.connection() as conn:
        async with conn.begin_nested() as savepoint:
            await add(conn, "undone")
            await savepoint.rollback()
        async with conn.begin_nested():
            await add(conn, "kept")
        await conn.commit()

    assert names(file) == ["kept"]


async def test_statements_at_once_on_one_connection_are_in_one_transaction(db: Database, file: Path) -> None:
    for scope in (db.connection, db.transaction):
        async with scope() as conn:
            await asyncio.gather(*[add(conn, str(n)) for n in range(5)])
            assert db.statistics().in_use == 1
            await conn.rollback()

    assert names(file) == []
    assert free(db)


async def test_a_connection_of_a_block_that_is_over_is_closed(db: Database) -> None:
    async with db.connection() as unused:
        pass
    async with db.connection() as used:
        await used.execute(COUNT)

    assert unused.closed and used.closed
    for conn in (unused, used):
        with pytest.raises(ResourceClosedError):
            await conn.execute(COUNT)
    assert free(db)


# -- transaction -----------------------------------------------------------------------------------------


async def test_a_transaction_commits_at_the_end_or_rolls_back(db: Database, file: Path) -> None:
    async with db.transaction() as conn:
        await add(conn, "kept")
        assert names(file) == []
    with pytest.raises(KeyError):
        async with db.transaction() as conn:
            await add(conn, "undone")
            raise KeyError

    assert names(file) == ["kept"]
    assert free(db)


async def test_a_transaction_without_a_statement_begins_nothing(db: Database) -> None:
    async with db.transaction():
        async with asyncio.timeout(5), db.transaction() as other:
            await add(other, "not kept waiting")
        assert free(db)


async def test_what_a_transaction_has_read_is_still_true_when_it_writes(db: Database, file: Path) -> None:
    async def append() -> None:
        async with db.transaction() as conn:
            count = (await conn.execute(COUNT)).scalar_one()
            await asyncio.sleep(0)
            await add(conn, str(count))

    await asyncio.gather(*[append() for _ in range(25)])

    assert names(file) == [str(n) for n in range(25)]
    assert db.statistics() == PoolStatistics(size=10, in_use=0, waiting=0, timeouts=0)


async def test_a_transaction_refuses_a_commit_in_its_middle(db: Database, file: Path) -> None:
    with pytest.raises(UsageError) as caught:
        async with db.transaction() as conn:
            await add(conn, "one")
            await conn.commit()

    assert str(caught.value) == (
        "db.transaction() commits at the end of its block, everything or nothing: leave the commit() out. To "
        "commit yourself, use db.connection()"
    )
    assert names(file) == []


async def test_a_transaction_that_was_rolled_back_inside_commits_nothing_of_it(
    db: Database, file: Path
) -> None:
    async with db.transaction() as conn:
        await add(conn, "undone")
        await conn.rollback()
        await add(conn, "kept")

    assert names(file) == ["kept"]


async def test_a_commit_that_fails_rolls_back_and_lets_the_next_in(db: Database, file: Path) -> None:
    async with db.transaction() as conn:
        await conn.execute(text("create table a (id integer primary key)"))
        await conn.execute(text("create table b (a references a deferrable initially deferred)"))
    with pytest.raises(IntegrityError):
        async with db.transaction() as conn:
            raw: Any = await conn.get_raw_connection()  # the transaction has not begun
            await raw.driver_connection.execute("pragma foreign_keys = on")
            await conn.execute(text("insert into b values (7)"))
    async with asyncio.timeout(5), db.transaction() as conn:
        await add(conn, "next")
    with pytest.raises(IntegrityError):
        async with db.connection() as conn:
            await conn.exec_driver_sql("pragma foreign_keys = on")
            await conn.execute(text("insert into b values (7)"))
            await conn.commit()
    async with asyncio.timeout(5), db.connection() as conn:
        await add(conn, "last")
        await conn.commit()

    assert names(file) == ["next", "last"]


async def test_a_transaction_that_sqlite_has_ended_is_not_continued(db: Database, file: Path) -> None:
    async with db.transaction() as conn:
        await conn.execute(text("create unique index one on pages (name)"))
        await add(conn, "there")
    for more in (True, False):
        with pytest.raises(PendingRollbackError, match="SQLite has rolled this transaction back by itself"):
            async with db.transaction() as conn:
                await add(conn, "first")
                with pytest.raises(IntegrityError):
                    await conn.execute(text("insert or rollback into pages values ('there')"))
                if more:
                    await add(conn, "second")

    assert names(file) == ["there"]
    assert free(db)


async def test_a_second_write_transaction_in_one_task_would_wait_for_itself(db: Database, file: Path) -> None:
    with pytest.raises(WouldDeadlock) as caught:
        async with db.transaction() as outer:
            line = here() + 1
            await outer.execute(INSERT, {"name": "outer"})
            async with db.transaction() as inner:
                await add(inner, "inner")

    assert str(caught.value) == (
        f"this would wait for ever: the same task holds a write transaction on sqlite+aiosqlite:///{file} "
        f"(since {__file__}:{line}), and SQLite has one writer at a time. Use that connection here, or "
        "leave its block first"
    )
    assert free(db)


def here() -> int:
    return sys._getframe(1).f_lineno


async def test_the_hooks_of_a_commit_run_around_it(db: Database, file: Path) -> None:
    seen: list[object] = []

    async def before(connection: AsyncConnection) -> None:
        await add(connection, "settled")
        seen.append(names(file))

    scope: Any = db.transaction()
    scope.before_commit = before
    scope.after_commit = lambda: seen.append(names(file))
    async with scope as conn:
        await add(conn, "effect")

    assert seen == [[], ["effect", "settled"]]


async def test_a_refused_settlement_rolls_back(db: Database, file: Path) -> None:
    async def before(connection: AsyncConnection) -> None:
        await add(connection, "settled")
        raise LookupError("the lease is lost")

    scope: Any = db.transaction()
    scope.before_commit = before
    scope.after_commit = lambda: pytest.fail("nothing was committed")
    with pytest.raises(LookupError):
        async with scope as conn:
            await add(conn, "effect")

    assert names(file) == []


# -- session ---------------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    words: Mapped[str]


@pytest.fixture
async def notes(db: Database) -> Database:
    async with db.transaction() as conn:
        await conn.run_sync(Base.metadata.create_all)
    return db


async def test_a_session_commits_at_the_end_or_rolls_back(notes: Database) -> None:
    async with notes.session() as session:
        note = Note(words="kept")
        session.add(note)
        assert free(notes)
    assert note.words == "kept" and note.id == 1  # usable after the commit
    with pytest.raises(KeyError):
        async with notes.session() as session:
            session.add(Note(words="undone"))
            await session.flush()
            raise KeyError

    async with notes.session() as session:
        assert (await session.execute(text("select words from notes"))).scalars().all() == ["kept"]
    assert free(notes)


async def test_a_session_that_commits_in_its_middle_lets_others_write(notes: Database) -> None:
    async with notes.session() as session:
        session.add(Note(words="one"))
        await session.commit()
        assert free(notes)
        async with asyncio.timeout(5), notes.transaction() as conn:
            await add(conn, "between")
        session.add(Note(words="two"))

    async with notes.session() as session:
        assert (await session.execute(text("select count(*) from notes"))).scalar_one() == 2


async def test_the_hooks_of_a_session_see_what_was_only_added(notes: Database) -> None:
    seen: list[object] = []

    async def before(connection: AsyncConnection) -> None:
        seen.append((await connection.execute(text("select words from notes"))).scalar_one())

    scope: Any = notes.session()
    scope.before_commit = before
    scope.after_commit = lambda: seen.append("committed")
    async with scope as session:
        session.add(Note(words="pending"))
        assert scope.is_open

    assert seen == ["pending", "committed"]


# -- the pool --------------------------------------------------------------------------------------------


async def test_the_statistics_are_exact(file: Path) -> None:
    async with database(file, pool_size=2, pool_timeout=0.05) as db:
        assert db.statistics() == PoolStatistics(size=1, in_use=0, waiting=0, timeouts=0)
        async with db.connection() as one, db.connection() as two, db.connection() as three:
            await one.execute(COUNT)
            await two.execute(COUNT)
            assert db.statistics() == PoolStatistics(size=2, in_use=2, waiting=0, timeouts=0)
            waiting = asyncio.create_task(three.execute(COUNT))
            while db.statistics().waiting == 0:
                await asyncio.sleep(0)
            assert db.statistics() == PoolStatistics(size=2, in_use=2, waiting=1, timeouts=0)
            with pytest.raises(TimeoutError):
                await waiting
            assert db.statistics() == PoolStatistics(size=2, in_use=2, waiting=0, timeouts=1)
        assert db.statistics() == PoolStatistics(size=2, in_use=0, waiting=0, timeouts=1)


async def test_waiting_for_a_connection_is_bounded_and_says_what_to_do(file: Path) -> None:
    async with database(file, pool_size=1, pool_timeout=0.05) as db, db.connection() as one:
        await one.execute(COUNT)
        with pytest.raises(SqlalchemyTimeout) as caught:
            async with db.session() as session:
                await session.execute(COUNT)

    assert isinstance(caught.value, TimeoutError)
    assert str(caught.value) == (
        "no connection of the pool was free within 0.05 s: all 1 are in use. Hold connections for a shorter "
        "time (leave the `async with` block earlier), or give app.database(...) a larger pool_size"
    )


async def test_a_pool_of_another_kind_tells_what_it_knows(file: Path) -> None:
    async with database(file) as db:
        pool = db._pool()
        ours = pool.engine
        for kind, expected in ((NullPool, PoolStatistics()), (AsyncAdaptedQueuePool, PoolStatistics(1, 1))):
            pool.engine = create_async_engine(f"sqlite+aiosqlite:///{file}", poolclass=kind)
            async with pool.engine.connect():
                assert db.statistics() == expected
            await pool.engine.dispose()
        pool.engine = ours


def test_statistics_before_the_first_use_open_nothing(file: Path) -> None:
    async def main() -> PoolStatistics:
        return Database(ResourcePool(), f"sqlite:///{file}", store_url=str).statistics()

    assert asyncio.run(main()) == PoolStatistics()
    assert not file.exists()


async def test_the_engine_is_one_object(db: Database) -> None:
    assert isinstance(db.engine, AsyncEngine)
    assert db.engine is db.engine
    async with db.engine.begin() as conn:
        await add(conn, "by the engine")
        async with db.connection() as other:
            assert (await other.execute(COUNT)).scalar_one() == 0


def test_two_loops_one_after_the_other_have_their_own_engines(file: Path) -> None:
    pool = ResourcePool()
    db = Database(pool, f"sqlite:///{file}", store_url=str)
    engines: list[AsyncEngine] = []

    async def main(name: str) -> None:
        engines.append(db.engine)
        async with db.transaction() as conn:
            await conn.execute(TABLE)
            await add(conn, name)

    asyncio.run(main("one"))
    asyncio.run(main("two"))

    assert engines[0] is not engines[1]
    assert names(file) == ["one", "two"]


def test_the_threads_of_a_pool_end_with_its_loop_however_it_ends(file: Path) -> None:
    pool = ResourcePool()
    db = Database(pool, f"sqlite:///{file}", store_url=str)

    async def main() -> None:
        async with db.transaction() as conn:
            await conn.execute(TABLE)

    asyncio.run(main())
    until_threads_end()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    assert len(pool_threads()) == 1
    loop.close()
    asyncio.run(main())  # notices the closed loop, and lets its connections go
    until_threads_end()


def until_threads_end() -> None:
    deadline = time.monotonic() + 5
    while pool_threads():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def pool_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("everloop-pool")]


@pytest.mark.parametrize("scope", ["connection", "transaction", "session"])
async def test_closing_takes_the_connections_that_are_in_use(file: Path, scope: str) -> None:
    with pytest.raises(ClosedError, match="the connection was closed during this transaction"):
        async with database(file) as db, AsyncExitStack() as late:
            conn = await late.enter_async_context(getattr(db, scope)())
            await conn.execute(INSERT, {"name": "never committed"})
            await db._resources.aclose()
            if scope == "connection":
                await conn.commit()

    assert names(file) == []
    until_threads_end()


async def test_a_closing_app_gives_no_connection(file: Path) -> None:
    pool = ResourcePool()
    db = Database(pool, f"sqlite:///{file}", store_url=str)
    errors: list[str] = []

    async def http() -> AsyncIterator[None]:
        yield
        try:
            async with db.connection():
                pass
        except ClosedError as error:
            errors.append(str(error))

    await pool.get(pool.declare(http))
    await pool.aclose()

    assert errors == ["the app is being closed: its resources cannot be used any more"]


EXIT = """
import asyncio, sys
from sqlalchemy import text
from everloop.resources.database import Database
from everloop.resources.resource import ResourcePool

db = Database(ResourcePool(), "sqlite:///shop.db", store_url=str)

async def main():
    conn = await db.engine.connect()
    await conn.execute(text("create table pages (name text)"))
    await conn.commit()
    globals()["kept"] = conn

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
if sys.argv[1:] == ["close"]:
    loop.close()
print("over")
"""


@pytest.mark.parametrize("arguments", [[], ["close"]])
def test_a_program_that_closes_nothing_ends(tmp_path: Path, arguments: list[str]) -> None:
    program = tmp_path / "program.py"
    program.write_text(EXIT)
    began = time.monotonic()
    ran = run_program(program, *arguments, folder=tmp_path).checked()

    assert ran.lines == ["over"]
    assert time.monotonic() - began < 20
    assert "Traceback" not in ran.err


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_its_own_connections(file: Path) -> None:
    pool = ResourcePool()
    db = Database(pool, f"sqlite:///{file}", store_url=str)

    async def insert(name: str) -> None:
        async with db.transaction() as conn:
            await conn.execute(TABLE)
            await add(conn, name)

    async def main() -> None:
        async with db.transaction() as conn:
            await conn.execute(TABLE)
            await add(conn, "parent")
        engine = db.engine
        child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio.events._set_running_loop(None)
                loop = asyncio.new_event_loop()
                loop.run_until_complete(insert("child"))
                loop.run_until_complete(pool.aclose())
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert db.engine is engine
        await insert("parent again")

    asyncio.run(main())

    assert names(file) == ["parent", "child", "parent again"]


# -- its URL and options ---------------------------------------------------------------------------------


async def test_the_stores_own_file_is_known_whatever_it_is_called(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    store = f"sqlite:///{file}"

    def own(url: str | None) -> bool:
        return Database(ResourcePool(), url, store_url=lambda: store).own

    assert own(None) and own(store) and own(f"sqlite+aiosqlite:///{tmp_path}/link/shop.db")
    assert not own(f"sqlite:///{tmp_path}/other.db")


async def test_the_settings_of_a_connection_are_durable(file: Path) -> None:
    async def pragma(db: Database, name: str) -> Any:
        async with db.connection() as conn:
            return (await conn.execute(text(f"pragma {name}"))).scalar_one()

    for own, checkpoint in ((False, 1000), (True, 0)):
        async with database(file, own=own) as db:
            assert await pragma(db, "journal_mode") == "wal"
            assert await pragma(db, "synchronous") == 2
            assert await pragma(db, "wal_autocheckpoint") == checkpoint
            assert await pragma(db, "foreign_keys") == 0


async def test_connect_arguments_and_read_only_files_are_possible(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("create table pages (name text)")
    connection.close()
    pool = ResourcePool()
    url = f"sqlite:///file:{file}?mode=ro&uri=true"
    db = Database(pool, url, store_url=str, connect_args={"cached_statements": 3})
    async with db.connection() as conn:
        assert (await conn.execute(COUNT)).scalar_one() == 0
    with pytest.raises(Exception, match="readonly"):
        async with db.transaction() as conn:
            await add(conn, "refused")
    assert free(db)
    await pool.aclose()


async def test_options_that_do_not_fit_are_refused(file: Path) -> None:
    async def refusal(**options: Any) -> str:
        pool = ResourcePool()
        with pytest.raises((ConfigError, OptionError)) as caught:
            _ = Database(pool, f"sqlite:///{file}", store_url=str, **options).engine
        await pool.aclose()
        return str(caught.value)

    assert "Invalid argument(s) 'pool_sise'" in await refusal(pool_sise=3)
    assert await refusal(poolclass=object, creator=None) == (
        "app.database() makes the connections to SQLite itself: creator, poolclass cannot be given. An "
        "engine of your own fits into a resource: @app.resource async def engine(): ..."
    )


def test_an_engine_outside_of_a_loop_is_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="belong to a running event loop"):
        _ = Database(ResourcePool(), f"sqlite:///{file}", store_url=str).engine


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    shown = repr(Database(ResourcePool(), "postgresql+asyncpg://ada:secret@db/shop", store_url=str))

    assert shown == "<everloop.Database postgresql+asyncpg://ada:***@db/shop>"
