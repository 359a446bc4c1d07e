"""Run a verb inside a transaction that the user's own SQLAlchemy connection or session has open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from sqlalchemy.engine import Connection, CursorResult, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util.concurrency import await_only, greenlet_spawn

from everloop.store.sql.runners.dbapi import SqliteHand
from everloop.store.sql.runners.hand import Hand, drive
from everloop.store.sql.spelling import Folding
from everloop.store.sql.verbs.statement import Verb
from everloop.store.transactions import UserTransaction

T = TypeVar("T")

#: Where the transactions wait for their end, among what is kept with a driver's connection.
_WAITING = "everloop.transactions"

#: One verb at a time on one connection: its statements lie between a savepoint and its release.
_in_use: WeakKeyDictionary[AsyncConnection | AsyncSession, asyncio.Lock] = WeakKeyDictionary()


async def drive_on(connection: AsyncConnection, verb: Verb[T], folding: Folding) -> T:
    """Drive `verb` on a connection whose transaction the caller commits or rolls back."""
    return await run_on(connection, partial(_drive, verb, folding))


def _drive(verb: Verb[T], folding: Folding, hand: Hand) -> T:
    return drive(hand, verb, folding)


async def run_on(
    connection: AsyncConnection | AsyncSession | Connection | Session, work: Callable[[Hand], T]
) -> T:
    """Do `work` with a connection in hand: that of a session, when a session is given."""
    if isinstance(connection, AsyncConnection | AsyncSession):
        async with _in_use.setdefault(connection, asyncio.Lock()):
            if isinstance(connection, AsyncConnection):
                return await connection.run_sync(_with_connection, work)
            return await connection.run_sync(_with_session, work)
    if isinstance(connection, Connection):
        do, dialect = partial(_with_connection, connection, work), connection.dialect
    else:
        do, dialect = partial(_with_session, connection, work), connection.get_bind().dialect
    # The synchronous side of an asynchronous one waits for its loop in a greenlet.
    return await greenlet_spawn(do) if dialect.is_async else do()


def _with_connection(connection: Connection, work: Callable[[Hand], T]) -> T:
    return work(SqlalchemyHand(connection))


def _with_session(session: Session, work: Callable[[Hand], T]) -> T:
    return work(SqlalchemyHand(session.connection()))


class SqlalchemyHand:
    """A SQLAlchemy connection in hand."""

    failures: tuple[type[Exception], ...] = (DBAPIError,)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.notes: dict[Any, Any] = connection.info
        self.style: str = connection.dialect.paramstyle

    @property
    def in_transaction(self) -> bool:
        # SQLAlchemy counts a transaction from the first use on; the driver knows whether there is one.
        if self._connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            return False
        return bool(getattr(self._connection.connection.driver_connection, "in_transaction", True))

    def execute(self, sql: str, parameters: Any = None) -> Sequence[Sequence[Any]] | None:
        result: CursorResult[Any] = self._connection.exec_driver_sql(sql, parameters or None)
        return result.all() if result.returns_rows else None

    def at_a_stretch(self, work: Callable[[Hand], T]) -> T:
        in_thread = getattr(self._connection.connection.driver_connection, "in_thread", None)
        if in_thread is None:
            return work(self)
        # SQLite in our own pool: through SQLAlchemy each statement is three or four hops to the connection's
        # thread, and this is one for all.
        return cast("T", await_only(in_thread(lambda raw: work(SqliteHand(raw)))))

    def transaction(self) -> UserTransaction:
        connection, transaction = self._connection, self._connection.get_transaction()

        def is_open() -> bool:
            return bool(
                transaction is not None
                and transaction.is_active
                and not (connection.closed or connection.invalidated)
            )

        database = connection.engine.url.render_as_string(hide_password=True)
        opened = UserTransaction(database, is_open, tells=True)
        _hear_ends(connection.engine.dialect)
        self.notes.setdefault(_WAITING, []).append(opened)
        return opened


def _hear_ends(dialect: Dialect) -> None:
    """Let the transactions of this engine tell their ends.

    SQLAlchemy's own event `commit` comes before the commit, and the one after it (`after_commit`) is told of
    ORM sessions only. `do_commit` and `do_rollback` are the one place that every end passes: of connections
    and sessions, by asyncio or without, and of a connection that the pool takes back unfinished.
    """
    if _HEARD in vars(dialect):
        return
    setattr(dialect, _HEARD, True)
    commit, rollback = dialect.do_commit, dialect.do_rollback

    def do_commit(dbapi_connection: Any) -> None:
        commit(dbapi_connection)
        _tell(dbapi_connection, committed=True)

    def do_rollback(dbapi_connection: Any) -> None:
        rollback(dbapi_connection)
        _tell(dbapi_connection, committed=False)

    dialect.do_commit = do_commit  # type: ignore[method-assign]  # of this one engine
    dialect.do_rollback = do_rollback  # type: ignore[method-assign]  # (the same)


_HEARD = "everloop_hears"


def _tell(dbapi_connection: Any, *, committed: bool) -> None:
    info = getattr(dbapi_connection, "info", None)
    if isinstance(info, dict):  # a driver's own connection may have another
        waiting = cast("list[UserTransaction]", info.pop(_WAITING, []))
        for transaction in waiting:
            transaction.end(committed=committed)
