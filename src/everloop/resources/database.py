"""The global pool: one SQLAlchemy engine per process and loop, and the scopes that take from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

from everloop._core.errors import ConfigError, MissingDependency
from everloop._core.gate import WriteGate, write_gate
from everloop.resources import held
from everloop.resources.resource import ResourcePool

if TYPE_CHECKING:
    from types import TracebackType

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

    from everloop.resources.lazy import LazyConnection

#: Seconds that a scope waits for a free connection.
POOL_TIMEOUT = 30.0
#: The sync URLs that people write, and the driver that the pool needs for them.
_ASYNC = {"sqlite": "sqlite+aiosqlite"}


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """The pool of one loop, now.

    Attributes:
        size: Connections that are open, in use or not.
        in_use: Connections that are taken.
        waiting: Scopes that wait for one.
        timeouts: Scopes that waited for too long, since the pool was opened.
    """

    size: int
    in_use: int
    waiting: int
    timeouts: int


class _Pool:
    """An engine and its counts."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.waiting = 0
        self.timeouts = 0


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
        self._given_url = url
        self._store_url = store_url
        self._options = engine_options
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = WeakKeyDictionary()
        if url is not None:
            async_url(url)

    def __repr__(self) -> str:
        return f"<everloop.Database {self._given_url or 'of the store'}>"

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the pool."""
        return async_url(self._given_url or self._store_url())

    @property
    def own(self) -> bool:
        """Whether this is the store's own database: effects and outcomes commit together."""
        mine, store = sqlite_file(self.url), sqlite_file(self._store_url())
        return mine is not None and mine == store

    @property
    def engine(self) -> AsyncEngine:
        """The engine of this process and loop; the same object each time.

        Raises:
            MissingDependency: SQLAlchemy or the URL's driver is not installed.
        """
        return self._pool().engine

    def statistics(self) -> PoolStatistics:
        """Return the counts of this loop's pool."""
        pool = self._pool()
        inner: Any = pool.engine.pool
        in_use = inner.checkedout()
        return PoolStatistics(in_use + inner.checkedin(), in_use, pool.waiting, pool.timeouts)

    def connection(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Take a connection; statements begin a transaction that you `commit()` yourself."""
        return Connection(self)

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Take a connection and one transaction: committed at the end of the block, or rolled back.

        In a task, on the store's own database, the outcome is committed with it: exactly once.
        """
        return Transaction(self)

    def session(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Take an ORM session and one transaction: committed at the end of the block, or rolled back."""
        return Session(self)

    # -- as the scopes see it -------------------------------------------------------------------------------

    def _pool(self) -> _Pool:
        opened = self._resources.here()
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None or not any(name == self._key for name, _ in opened.closers):
            pool = self._pools[loop] = _Pool(make_engine(self.url, self._options, own=self.own))
            opened.closers.append((self._key, pool.engine.dispose))
        return pool

    @property
    def _key(self) -> str:
        return f"database {id(self):x}"

    async def start(self, connection: LazyConnection) -> None:
        """Take a pooled connection; wait for a bounded time."""
        from sqlalchemy.exc import TimeoutError as PoolTimeout

        pool = self._pool()
        pool.waiting += 1
        try:
            _ = await connection.start()
        except PoolTimeout as error:
            pool.timeouts += 1
            raise TimeoutError(
                f"no connection of the pool for {self.url} was free in time ({error.args[0]}); raise "
                "pool_size or "
                "max_overflow in app.database(...), or hold connections for a shorter time"
            ) from error
        finally:
            pool.waiting -= 1

    def gate(self) -> WriteGate | None:
        """Return the line in which writers of the store's own file stand, the engine among them."""
        path = sqlite_file(self.url)
        return write_gate(path) if path is not None and self.own else None


class _Scope:
    """What the three scopes share: what is held, the line of writers, and who began what."""

    what = "a connection"
    writes = False

    def __init__(self, database: Database) -> None:
        self.database = database
        self.own = database.own
        self.began = False
        self._gate = database.gate() if self.writes else None
        self._line = AsyncExitStack()
        self._holding: held.Holding | None = None

    def _enter(self) -> None:
        self._holding = held.Holding(
            f"{self.what} on {self.database.url}", own_write=self.writes and self.own
        )
        held.enter(self._holding)

    async def stand_in_line(self) -> None:
        """Before BEGIN IMMEDIATE on the store's own file: wait for the other writers of this process."""
        if self._gate is not None and not self.began:
            await self._line.enter_async_context(self._gate.hold_async())

    def note_begin(self) -> None:
        """Something is held from now on."""
        self.began = True
        if self._holding is not None:
            self._holding.active = True

    async def _leave(self) -> None:
        if self._holding is not None:
            held.leave(self._holding)
        await self._line.aclose()

    def _engine(self) -> AsyncEngine:
        return self.database.engine.execution_options(everloop_scope=self)


class Connection(_Scope):
    """`db.connection()`."""

    async def __aenter__(self) -> AsyncConnection:
        self._enter()
        self._connection = _lazy(self._engine(), self._start)
        return self._connection

    async def _start(self, connection: LazyConnection) -> None:
        await self.database.start(connection)
        self.note_begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await _close(self._connection, error)
        finally:
            await self._leave()


class Transaction(_Scope):
    """`db.transaction()`.

    Attributes:
        before_commit: Called with the connection as the last thing inside the transaction.
        after_commit: Called when it is committed.
    """

    what = "a write transaction"
    writes = True

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.before_commit: Callable[[AsyncConnection], Awaitable[None]] | None = None
        self.after_commit: Callable[[], None] | None = None

    async def __aenter__(self) -> AsyncConnection:
        self._enter()
        self._connection = _lazy(self._engine(), self.database.start)
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection = self._connection
        try:
            if error is None and connection.started:
                if self.before_commit is not None:
                    await self.before_commit(connection)
                await connection.commit()
                if self.after_commit is not None:
                    self.after_commit()
        finally:
            try:
                await _close(connection, error)
            finally:
                await self._leave()


class Session(_Scope):
    """`db.session()`."""

    what = "a session with a write transaction"
    writes = True

    async def __aenter__(self) -> AsyncSession:
        from sqlalchemy.ext.asyncio import AsyncSession

        self._enter()
        self._session = AsyncSession(self._engine(), expire_on_commit=False)
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._session.commit()
        finally:
            try:
                await asyncio.shield(self._session.close())
            finally:
                await self._leave()


def _lazy(engine: AsyncEngine, start: Callable[[LazyConnection], Awaitable[None]]) -> LazyConnection:
    from everloop.resources.lazy import LazyConnection

    return LazyConnection(engine, start)


async def _close(connection: LazyConnection, error: BaseException | None) -> None:
    """Give the connection back, rolled back if it is in a transaction; a running query is stopped."""
    if not connection.started:
        return
    if isinstance(error, asyncio.CancelledError):
        interrupt(connection)
    await asyncio.shield(connection.close())


def interrupt(connection: LazyConnection) -> None:
    """Stop the query that a cancelled task has left running on SQLite: the next user would wait for it."""
    sync: Any = connection.sync_connection
    if sync is None or sync.closed or sync.invalidated or sync.dialect.driver != "aiosqlite":
        return
    driver = sync.connection.driver_connection
    raw = getattr(driver, "_conn", None)
    if raw is not None:
        raw.interrupt()


def make_engine(url: str, options: dict[str, Any], *, own: bool) -> AsyncEngine:
    """Create the engine of one loop.

    Raises:
        MissingDependency: SQLAlchemy or the driver is not installed.
        ConfigError: The URL is none that SQLAlchemy's asyncio engines take.
    """
    try:
        from sqlalchemy.exc import ArgumentError, InvalidRequestError, NoSuchModuleError
        from sqlalchemy.ext.asyncio import create_async_engine
    except ImportError as error:
        raise MissingDependency(
            f'app.database() needs SQLAlchemy: pip install "everloop[sql]" ({error})'
        ) from error
    defaults: dict[str, Any] = {"pool_timeout": POOL_TIMEOUT}
    if sqlite_file(url) is None:
        defaults["pool_pre_ping"] = True
    try:
        engine = create_async_engine(url, **(defaults | options))
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"the database URL {url!r} needs the package {error.name!r}: "
            + ('pip install "everloop[sql]"' if error.name == "aiosqlite" else f"pip install {error.name}")
        ) from error
    except (ArgumentError, InvalidRequestError, NoSuchModuleError, TypeError) as error:
        raise ConfigError(f"app.database({url!r}): {error}") from error
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, own=own)
    return engine


def _prepare_sqlite(engine: AsyncEngine, *, own: bool) -> None:
    """Make SQLite durable, and let write scopes begin with BEGIN IMMEDIATE.

    The driver would begin by itself, late and in a mode that may fail at the first write, so its own
    transactions are off (https://docs.sqlalchemy.org/en/20/dialects/sqlite.html, "transactional DDL").
    """
    from sqlalchemy import event

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 30000")
        if sqlite_file(str(engine.url)) is not None:
            cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        if own:
            # Only the store's keeper checkpoints this file: see SqliteFile.checkpoint.
            cursor.execute("PRAGMA wal_autocheckpoint = 0")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begins(connection: Any) -> None:
        scope = connection.get_execution_options().get("everloop_scope")
        if scope is not None and scope.writes:
            _begin_immediate(connection, scope)
        else:
            connection.exec_driver_sql("BEGIN")


def _begin_immediate(connection: Any, scope: _Scope) -> None:
    from sqlalchemy.util import await_only

    await_only(scope.stand_in_line())
    began = time.monotonic()
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    except Exception as error:
        error.add_note(f"after waiting {time.monotonic() - began:.1f} s for the writers of other processes")
        raise
    scope.note_begin()


def async_url(url: str) -> str:
    """Return the URL for SQLAlchemy's asyncio engine.

    Raises:
        ConfigError: It has no scheme, or is one of a store that is no SQL database.
    """
    scheme, colon, rest = url.partition("://")
    if not colon:
        raise ConfigError(
            f"the database URL {url!r} has no `scheme://`; write for example sqlite+aiosqlite:///{url}"
        )
    if scheme == "memory":
        raise ConfigError(
            "app.database() without a URL means the store's own database, and this store is in memory; "
            "give a URL, "
            "for example app.database('sqlite+aiosqlite:///shop.db')"
        )
    return f"{_ASYNC.get(scheme, scheme)}://{rest}"


def sqlite_file(url: str) -> Path | None:
    """Return the file that an SQLite URL names; None for another database, or one in memory."""
    parts = urlsplit(url)
    path = unquote(parts.path[1:])
    if not parts.scheme.startswith("sqlite") or not path or path == ":memory:":
        return None
    return Path(path).expanduser().resolve()
