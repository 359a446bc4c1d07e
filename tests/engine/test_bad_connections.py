"""What cannot be given as `connection=`, and what the refusal says to give instead."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import sessionmaker

from everloop import App, Call, Database, OptionError, UsageError
from everloop.store.url import sqlite_path
from tests.engine.conftest import make

WANTED = (
    "`connection` is a SQLAlchemy connection or session (of asyncio or not), or one of Python's sqlite3, of "
    "psycopg or of PyMySQL, not "
)


class Shop:
    """An app with a task function, and a database that is its store's."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.file = sqlite_path(app.store_url)
        self.db: Database = app.database()

        @app.task
        async def send(to: str) -> str:
            return to

        self.send = send

    async def refused(self, connection: Any, kind: type[Exception] = UsageError) -> str:
        """Return what the refusal says; nothing is left of the call, and no warning that it was forgotten."""
        call: Call[str] = self.send("ada")
        with pytest.raises(kind) as caught:
            await self.app.submit(call, connection=connection)
        with pytest.raises(kind) as again:
            await self.app.submit_many([self.send("ada")], connection=connection)
        assert str(again.value) == str(caught.value)
        assert set((await self.app.counts()).values()) == {0}
        return str(caught.value)


@pytest.fixture
async def shop(sqlite: str) -> AsyncIterator[Shop]:
    shop = Shop(make(sqlite))
    async with shop.app:
        yield shop


# -- not a connection ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [5, "conn", object, sessionmaker()])
async def test_what_is_no_connection(shop: Shop, given: object) -> None:
    assert await shop.refused(given, OptionError) == f"{WANTED}{given!r:.100}"


async def test_an_engine(shop: Shop) -> None:
    engine = create_engine(f"sqlite:///{shop.file}")
    for given in (engine, shop.db.engine):
        assert await shop.refused(given, OptionError) == (
            f"{WANTED}{given!r:.100}: an engine has no transaction. Take a connection, `with "
            "engine.begin() as conn:`"
        )


async def test_a_database_or_a_scope_that_was_not_entered(shop: Shop) -> None:
    for given in (shop.db, shop.db.transaction()):
        assert await shop.refused(given, OptionError) == (
            f"{WANTED}{given!r:.100}: take a connection, `async with db.transaction() as conn:`, and "
            "give that"
        )


async def test_a_raw_connection_of_a_driver_for_asyncio(shop: Shop) -> None:
    class Asyncpg:
        """As the driver's, which is not installed here."""

    Asyncpg.__module__ = "asyncpg.connection"
    async with aiosqlite.connect(shop.file) as raw:
        for given, package in ((raw, "aiosqlite"), (Asyncpg(), "asyncpg")):
            assert await shop.refused(given, OptionError) == (
                f"{WANTED}{given!r:.100}: statements of ours reach {package} through SQLAlchemy only. Take "
                "the connection from app.database(...), or from an AsyncEngine of yours"
            )


async def test_what_sqlalchemy_wraps_a_driver_for_asyncio_in(shop: Shop) -> None:
    async with shop.db.connection() as conn:
        fairy: Any = await conn.get_raw_connection()
        for given in (fairy, fairy.dbapi_connection):
            assert await shop.refused(given, OptionError) == (
                f"{WANTED}{given!r:.100}: give the SQLAlchemy connection that it belongs to"
            )


async def test_django_s_wrapper(shop: Shop) -> None:
    class Wrapper:
        """As Django's, which is not installed here."""

    Wrapper.__module__ = "django.db.backends.sqlite3.base"
    given = Wrapper()

    assert await shop.refused(given, OptionError) == (
        f"{WANTED}{given!r:.100}: give the driver's own, `connection.connection`, inside "
        "`transaction.atomic()`"
    )


# -- not usable ---------------------------------------------------------------------------------------------


async def test_a_connection_that_is_closed(shop: Shop) -> None:
    with closing(sqlite3.connect(shop.file)) as plain:
        pass
    engine = create_engine(f"sqlite:///{shop.file}")
    with engine.connect() as sync:
        pass
    engine.dispose()
    async with shop.db.connection() as lazy:
        pass
    async with shop.db.engine.connect() as conn:
        pass

    assert (await shop.refused(plain)).endswith(" is closed: submit before you close it")
    for given in (sync, lazy, conn):
        assert await shop.refused(given) == "the connection is closed: submit inside its `with` block"


async def test_a_connection_that_was_not_opened(shop: Shop) -> None:
    assert await shop.refused(shop.db.engine.connect()) == (
        "the connection has not been opened: `async with engine.connect() as conn:`, or `conn = await "
        "engine.connect()`"
    )


async def test_a_driver_that_commits_each_statement(shop: Shop) -> None:
    expected = (
        f"the connection to {str(shop.file)!r} has no transaction open, because its driver commits each "
        "statement by itself (autocommit): begin one first, or take the connection from app.database()"
    )
    with closing(sqlite3.connect(shop.file, isolation_level=None)) as plain:
        assert await shop.refused(plain) == expected
    engine = create_engine(f"sqlite:///{shop.file}", isolation_level="AUTOCOMMIT")
    with engine.connect() as sync:
        assert await shop.refused(sync) == expected
    engine.dispose()
    async with shop.db.connection() as conn:
        await conn.execution_options(isolation_level="AUTOCOMMIT")
        assert await shop.refused(conn) == expected
    theirs = create_async_engine(f"sqlite+aiosqlite:///{shop.file}", isolation_level="AUTOCOMMIT")
    async with AsyncSession(theirs) as session:
        assert await shop.refused(session) == expected
    await theirs.dispose()


async def test_another_database(shop: Shop, tmp_path: Path) -> None:
    other = tmp_path / "other.db"

    def expected(file: object) -> str:
        return (
            f"`connection` is on {str(file)!r}, and the calls of this app are on {str(shop.file)!r}: a "
            "transaction reaches one database. Take the connection from app.database(), or submit after the "
            "commit"
        )

    with closing(sqlite3.connect(other)) as plain:
        assert await shop.refused(plain) == expected(other)
        assert not plain.in_transaction
        plain.execute(f"attach '{shop.file}' as calls")
        assert await shop.refused(plain) == expected(other)
    with closing(sqlite3.connect(":memory:")) as memory:
        assert await shop.refused(memory) == expected("a database in memory")
    async with shop.app.database(f"sqlite:///{other}").transaction() as conn:
        assert await shop.refused(conn) == expected(other)


async def test_a_database_of_another_kind(shop: Shop) -> None:
    class Elsewhere(AsyncSession):
        """As one on a server: its engine is never used."""

        def get_bind(self, *_: Any, **__: Any) -> Any:
            class Bind:
                class dialect:  # noqa: N801 - as SQLAlchemy names it
                    name = "postgresql"

            return Bind

    async with Elsewhere() as session:
        assert await shop.refused(session) == (
            "`connection` is on a postgresql database, and the calls of this app are on "
            f"{str(shop.file)!r}: a transaction reaches one database. Take the connection from "
            "app.database(), or submit after the commit"
        )


async def test_a_connection_that_may_only_read(shop: Shop) -> None:
    with closing(sqlite3.connect(f"file:{shop.file}?mode=ro", uri=True)) as conn:
        call = shop.send("ada")
        with pytest.raises(Exception, match="attempt to write a readonly database"):
            await shop.app.submit(call, connection=conn)


async def test_any_connection_to_an_app_in_memory() -> None:
    app = App("my-app", "memory://", embed=False)

    @app.task
    async def send(to: str) -> str:
        return to

    async with app:
        with closing(sqlite3.connect(":memory:")) as conn, pytest.raises(UsageError) as caught:
            await app.submit(send("ada"), connection=conn)

    assert str(caught.value) == (
        "the calls of this app are on memory://, which is no database: send() cannot be submitted in the "
        f"transaction of {conn!r:.100}. Leave `connection=` out, or give the app a store on that database"
    )


async def test_without_a_connection_the_refusal_inside_a_transaction_tells_of_it(shop: Shop) -> None:
    async with shop.db.transaction() as conn:
        await conn.execute(text("create table orders (name text)"))
        with pytest.raises(UsageError) as caught:
            await shop.app.submit(shop.send("ada"))

    assert str(caught.value).startswith(
        "waiting for the commit of send() while holding a write transaction on "
    )
    assert str(caught.value).endswith(
        ": the store waits for that, and both would wait for ever. Submit in that transaction "
        "(`connection=`), or leave its `async with` block first"
    )
