"""The SQLAlchemy engine of one loop: its options, its pool, and what it does before a statement."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

import aiosqlite
from sqlalchemy import event
from sqlalchemy.engine import Connection, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection, QueuePool
from sqlalchemy.util import await_only

from everloop._core.errors import ConfigError, MissingDependency, OptionError
from everloop._core.text import without_password
from everloop.resources import held
from everloop.resources.address import without_driver
from everloop.resources.connecting import DRIVERS, Connect, ServerConnector
from everloop.resources.scopes import Scope
from everloop.resources.sqlite import SqliteConnection, connector, writes
from everloop.resources.statistics import PoolStatistics

#: Seconds that a scope waits for a free connection, and for its turn to write.
POOL_TIMEOUT = 30.0
#: Connections to an SQLite file: each has a thread, and is kept rather than opened and closed again.
SQLITE_POOL = {"pool_size": 10, "max_overflow": 0}
#: Connections to a server: a tenth of what MySQL and PostgreSQL take by default, so that several processes
#: fit; renewed after half an hour, which is less than the time for which they are kept idle at the other end.
SERVER_POOL = {"pool_size": 10, "max_overflow": 0, "pool_recycle": 1_800}
#: What decides how connections are made, which for SQLite is ours.
_OURS = ("creator", "async_creator", "factory", "isolation_level", "module", "pool", "poolclass")


class PoolTimeout(NoConnection, TimeoutError):
    """No connection of the pool was free in time."""


class CountingPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's pool, which counts who waits."""

    waiting = 0
    timeouts = 0
    #: What gives more of them, for the message.
    larger = "give app.database(...) a larger pool_size"

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
                f"{self.larger}"
            ) from error
        finally:
            self.waiting -= full


def _a_failed_ping_is_a_lost_connection(context: ExceptionContext) -> None:
    """Replace a connection that does not answer the ping before its use.

    SQLAlchemy raises what it does not know as a disconnection, such as what the drivers of MySQL say of a
    connection whose rollback was cancelled.
    """
    if context.is_pre_ping:
        context.is_disconnect = True


class EngineUse:
    """A write transaction on an SQLite file, begun on a connection of `db.engine`, outside of any scope.

    Attributes:
        holding: What it holds.
    """

    def __init__(self, pool: Pool) -> None:
        self.holding = held.Holding(pool.shown, str(pool.file or ""), own=pool.own)

    def began(self) -> None:
        """The transaction is open."""
        self.holding.begin()
        self.holding.writing = True
        held.enter(self.holding)

    def ended(self) -> None:
        """It is over."""
        held.leave(self.holding)

    lost = ended


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
        self._connector: ServerConnector | None = None
        self.engine = (
            self._make_server(url, options) if file is None else self._make_sqlite(url, file, options)
        )

    def _make(self, url: str, options: dict[str, Any]) -> AsyncEngine:
        defaults: dict[str, Any] = {"pool_pre_ping": True}
        if not {"pool", "poolclass"} & options.keys():
            defaults |= {"poolclass": CountingPool, "pool_timeout": POOL_TIMEOUT}
        try:
            return create_async_engine(url, **(defaults | options))
        except ImportError as error:
            raise without_driver(self.shown, error) from error
        except (ArgumentError, InvalidRequestError, NoSuchModuleError, TypeError, ValueError) as error:
            raise ConfigError(f"app.database({self.shown!r}): {error}") from error

    def _make_server(self, url: str, options: dict[str, Any]) -> AsyncEngine:
        try:
            address = make_url(url)
        except (ArgumentError, ValueError):
            # Without the cause: what SQLAlchemy took for the port may be a part of the password.
            raise ConfigError(
                f"app.database({self.shown!r}) cannot be read as driver://user:password@host:port/database. "
                "A password with one of @ : / ? # % is written as urllib.parse.quote(password, safe='') "
                "gives it"
            ) from None
        if address.get_driver_name() not in DRIVERS:
            return self._make(url, options)
        options = dict(options)
        given = dict(options.pop("connect_args", {}))
        own: Connect | None = given.pop("async_creator_fn", None)
        connector = self._connector = ServerConnector(address, own)
        if not {"pool", "poolclass"} & options.keys():
            options = {**SERVER_POOL, **options}
        given["async_creator_fn"] = connector.open
        engine = self._make(url, {**options, "connect_args": given})
        event.listen(engine.sync_engine, "invalidate", self._invalidated)
        event.listen(engine.sync_engine, "handle_error", _a_failed_ping_is_a_lost_connection)
        return engine

    def _invalidated(self, connection: Any, _record: object, error: BaseException | None) -> None:
        """Note that SQLAlchemy closes a connection: it never uses one again whose statement was cancelled."""
        abandoned = self._connector.abandoned if self._connector is not None else None
        if abandoned is not None and isinstance(error, (asyncio.CancelledError, TimeoutError)):
            abandoned.add(connection.driver_connection)

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
        if isinstance(driver, SqliteConnection) and not driver.in_transaction:
            await_only(driver.begin(scope or EngineUse(self)))

    async def close(self) -> None:
        """Close every connection; those that are still in use, too."""
        if self._connector is not None and self._connector.abandoned is not None:
            await self._connector.abandoned.finish()
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
