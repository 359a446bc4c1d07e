"""The global pool: one SQLAlchemy engine per process and loop, and the scopes that take from it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from everloop._core.text import without_password
from everloop.resources.address import async_url, check_installed, same_database, sqlite_file
from everloop.resources.resource import ResourcePool
from everloop.resources.scopes import ConnectionScope, SessionScope, TransactionScope
from everloop.resources.statistics import PoolStatistics

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

    from everloop.resources.engine import Pool


class Database:
    """A database that tasks and web handlers share through one pool (see `App.database`).

    Each scope takes a connection at its first statement, not before.

    Example:
        ```python
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import AsyncConnection
        from everloop import App, Use

        app = App("shop", "sqlite:///shop.db")
        db = app.database("sqlite:///orders.db")

        @app.task
        async def save(customer: str, conn: AsyncConnection = Use(db.transaction)) -> None:
            await conn.execute(text("create table if not exists orders (customer text)"))
            await conn.execute(text("insert into orders values (:c)"), {"c": customer})

        app.run(save("ada"))
        ```
    """

    __module__ = "everloop"

    def __init__(
        self, pool: ResourcePool, url: str | None, *, store_url: Callable[[], str], **engine_options: Any
    ) -> None:
        self._resources = pool
        self._given = url
        self._store_url = store_url
        self._options = engine_options
        if url is not None:
            check_installed(async_url(url))

    def __repr__(self) -> str:
        return f"<everloop.Database {without_password(self._given) if self._given else 'of the store'}>"

    @cached_property
    def url(self) -> str:
        """The SQLAlchemy URL of the pool.

        Raises:
            ConfigError: The pool is the store's own, and that is no SQL database.
        """
        return async_url(self._given or self._store_url())

    @property
    def own(self) -> bool:
        """Whether this is the store's own database: effects and outcomes commit together."""
        return same_database(self.url, self._store_url())

    @property
    def engine(self) -> AsyncEngine:
        """The engine of this process and loop; the same object each time.

        Raises:
            MissingDependency: SQLAlchemy or the URL's driver is not installed.
            UsageError: No loop runs: an engine belongs to one.
        """
        return self._pool().engine

    def statistics(self) -> PoolStatistics:
        """Return the counts of this loop's pool."""
        pool = self._resources.here().made(self)
        return pool.statistics() if pool is not None else PoolStatistics()

    def connection(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Take a connection, whose transactions you `commit()` yourself.

        On SQLite a statement that reads runs by itself, and the first that writes begins a write
        transaction, as with Python's own `sqlite3`; after `await conn.begin()` every statement is in it.
        What is not committed is rolled back at the end of the block.

        Example:
            ```python
            from sqlalchemy import text
            from everloop import App

            app = App("shop", "sqlite:///shop.db")
            db = app.database("sqlite:///orders.db")

            async def main() -> None:
                async with db.connection() as conn:
                    await conn.execute(text("create table orders (customer text)"))
                    await conn.execute(text("insert into orders values ('ada')"))
                    await conn.commit()

            app.run(main())
            ```
        """
        return ConnectionScope(self._pool)

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Take a connection and one transaction: committed at the end of the block, or rolled back.

        It begins with the first statement; on SQLite it is a write transaction from there on, so what it
        has read is still true when it writes. In a task, on the store's own database, the outcome is
        committed with it: exactly once.
        """
        return TransactionScope(self._pool)

    def session(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Take an ORM session and one transaction: committed at the end of the block, or rolled back.

        It is as `transaction()` in the rest. Objects stay usable after the commit.
        """
        return SessionScope(self._pool)

    def _pool(self) -> Pool:
        return self._resources.here().make(self, f"database {self!r}", self._open, _close, _drop)

    def _open(self) -> Pool:
        url = self.url
        check_installed(url)
        from everloop.resources.engine import Pool

        return Pool(url, sqlite_file(url), self._options, own=self.own)


class Databases:
    """The databases of one app: for each URL and its options there is one, however often it is asked for.

    Each has a pool that stays open as long as the app, so one for each time would be a leak.

    Args:
        pool: The resources of the app.
        store_url: Tells the URL of its store.
    """

    def __init__(self, pool: ResourcePool, store_url: Callable[[], str]) -> None:
        self._resources = pool
        self._store_url = store_url
        self._known: list[tuple[str | None, dict[str, Any], Database]] = []

    def get(self, url: str | None, options: dict[str, Any]) -> Database:
        """Return the database of this URL with these options."""
        for known, theirs, database in self._known:
            if known == url and theirs == options:
                return database
        database = Database(self._resources, url, store_url=self._store_url, **options)
        self._known.append((url, options, database))
        return database


async def _close(pool: Pool) -> None:
    await pool.close()


def _drop(pool: Pool) -> None:
    pool.drop()
