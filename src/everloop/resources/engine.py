"""The SQLAlchemy engine of one loop: its options, its pool, and what it does before a statement."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

import aiosqlite
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection, QueuePool
from sqlalchemy.util import await_only

from everloop._core.errors import ConfigError, MissingDependency, OptionError
from everloop._core.text import without_password
from everloop.resources.scopes import Scope
from everloop.resources.sqlite import SqliteConnection, connector, writes
from everloop.resources.statistics import PoolStatistics

#: Seconds that a scope waits for a free connection, and for its turn to write.
POOL_TIMEOUT = 30.0
#: Connections to an SQLite file: each has a thread, and is kept rather than opened and closed again.
SQLITE_POOL = {"pool_size": 10, "max_overflow": 0}
#: What decides how connections are made, which for SQLite is ours.
_OURS = ("creator", "async_creator", "factory", "isolation_level", "module", "pool", "poolclass")


class PoolTimeout(NoConnection, TimeoutError):
    """No connection of the pool was free in time."""


class CountingPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's pool, which counts who waits."""

    waiting = 0
    timeouts = 0

    def connect(self) -> PoolProxiedConnection:
        """Take a connection; wait for a bounded time."""
        full = int(self.checkedin() == 0 and self.overflow() >= self._max_overflow >= 0)
        self.waiting += full
        try:
            return super().connect()
        except NoConnection as error:
            self.timeouts += 1
            raise PoolTimeout(
                f"no connection of the pool was free within {self.timeout():g} s: all {self.checkedout()} "
                "are in use. Hold connections for a shorter time (leave the `async with` block earlier), or "
                "give app.database(...) a larger pool_size"
            ) from error
        finally:
            self.waiting -= full


class Pool:
    """The engine of one loop, and what is known of its database.

    Attributes:
        engine: What users get as `db.engine`.
        shown: The URL without its password.
        file: The SQLite file, or None.
        own: Whether that is the store's own.
    """

    def __init__(self, url: str, file: Path | None, options: dict[str, Any], *, own: bool) -> None:
        self.shown = without_password(url)
        self.file = file
        self.own = own
        self._drivers: WeakSet[SqliteConnection] = WeakSet()
        self.engine = self._make(url, options) if file is None else self._make_sqlite(url, file, options)

    def _make(self, url: str, options: dict[str, Any]) -> AsyncEngine:
        defaults: dict[str, Any] = {"pool_pre_ping": True}
        if not {"pool", "poolclass"} & options.keys():
            defaults |= {"poolclass": CountingPool, "pool_timeout": POOL_TIMEOUT}
        try:
            return create_async_engine(url, **(defaults | options))
        except ModuleNotFoundError as error:
            raise MissingDependency(
                f"the database URL {self.shown!r} needs the package {error.name!r}: pip install {error.name}"
            ) from error
        except (ArgumentError, InvalidRequestError, NoSuchModuleError, TypeError) as error:
            raise ConfigError(f"app.database({self.shown!r}): {error}") from error

    def _make_sqlite(self, url: str, file: Path, options: dict[str, Any]) -> AsyncEngine:
        options = dict(options)
        given = dict(options.pop("connect_args", {}))
        refused = sorted(set(_OURS) & (options.keys() | given.keys()))
        if refused:
            raise OptionError(
                f"app.database() makes the connections to SQLite itself: {', '.join(refused)} cannot be "
                "given. An engine of your own fits into a resource: @app.resource async def engine(): ..."
            )
        if "stop" not in vars(aiosqlite.Connection):
            raise MissingDependency(
                f"app.database() needs aiosqlite 0.22.1 or newer, not {aiosqlite.__version__}: "
                'pip install "aiosqlite>=0.22.1"'
            )
        patience = float(options.get("pool_timeout", POOL_TIMEOUT))

        async def connect() -> SqliteConnection:
            dialect = engine.dialect
            open_ = partial(connector, dialect, engine.url, file, given, own=self.own)
            driver = SqliteConnection(open_, file, patience)
            self._drivers.add(driver)
            return await driver.opened()

        engine = self._make(url, {**SQLITE_POOL, "pool_pre_ping": False, **options, "async_creator": connect})
        event.listen(engine.sync_engine, "before_cursor_execute", self._before_statement)
        return engine

    def _before_statement(
        self,
        connection: Connection,
        _cursor: Any,
        statement: str,
        _parameters: Any,
        *_: object,
    ) -> None:
        options = connection.get_execution_options()
        scope: Scope | None = options.get("everloop_scope")
        if options.get("isolation_level") == "AUTOCOMMIT":
            return
        if not writes(statement) and not (scope is not None and scope.begins_at_once(connection)):
            return
        driver = connection.connection.driver_connection
        if isinstance(driver, SqliteConnection):
            await_only(driver.begin(scope, scope.holding if scope is not None else "a use of db.engine"))

    async def close(self) -> None:
        """Close every connection; those that are still in use, too."""
        await self.engine.dispose()
        await asyncio.gather(*[driver.close() for driver in list(self._drivers)])

    def drop(self) -> None:
        """End the threads of a pool whose loop is closed."""
        for driver in list(self._drivers):
            driver.stop()

    def statistics(self) -> PoolStatistics:
        """Return the counts now; a pool of the user's own kind tells what it knows."""
        pool = self.engine.pool
        if not isinstance(pool, QueuePool):
            return PoolStatistics()
        in_use = pool.checkedout()
        size = in_use + pool.checkedin()
        if isinstance(pool, CountingPool):
            return PoolStatistics(size, in_use, pool.waiting, pool.timeouts)
        return PoolStatistics(size, in_use)
