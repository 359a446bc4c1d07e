"""The three scopes of a database: a connection, a transaction, a session; each begins lazily."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from everloop._core.errors import ClosedError, UsageError
from everloop.resources import held
from everloop.resources.patience import finish, to_the_end

if TYPE_CHECKING:
    from types import TracebackType

    from sqlalchemy.engine import Connection, Transaction
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

    from everloop.resources.engine import Pool
    from everloop.resources.lazy import LazyConnection


class Scope:
    """What the three scopes share: what is held, and when a transaction is a writer's from the start."""

    #: Whether the first statement begins a write transaction, even if it reads.
    writes = False

    def __init__(self, pool: Callable[[], Pool]) -> None:
        self._pool = pool
        self._lost = False
        self.own = False

    def _enter(self) -> AsyncEngine:
        pool = self._pool()
        self.own = pool.own
        self.holding = held.Holding(pool.shown, str(pool.file or ""), own=pool.own)
        held.enter(self.holding)
        return pool.engine.execution_options(everloop_scope=self)

    # -- as the connection tells it -----------------------------------------------------------------------

    def started(self) -> None:
        """A connection has been taken from the pool."""
        self.holding.begin()
        self.holding.connection = True

    def began(self) -> None:
        """A write transaction is open on SQLite."""
        self.holding.begin()
        self.holding.writing = True

    def ended(self) -> None:
        """It is over."""
        self.holding.writing = False
        self._lost = False

    def lost(self) -> None:
        """It is over, because its connection was closed."""
        self.holding.writing = False
        self._lost = True

    def rolled_back(self) -> None:
        """The user knows that it is over."""
        self._lost = False

    def check_commit(self) -> None:
        """Refuse a commit that is not the user's to make, or of a transaction that is gone.

        SQLAlchemy takes a commit on a closed connection for a success.
        """
        if self._lost:
            raise ClosedError(
                "the connection was closed during this transaction (the app was closed, or a statement was "
                "cancelled): it is rolled back, and nothing of it can be committed"
            )

    def begins_at_once(self, _connection: Connection) -> bool:
        """Whether a statement that reads begins a write transaction, too."""
        return self.writes

    def begun_by_hand(self, transaction: Transaction | None) -> None:
        """Note the transaction of a `begin()`."""


class ConnectionScope(Scope):
    """`db.connection()`."""

    _by_hand: Transaction | None = None

    async def __aenter__(self) -> AsyncConnection:
        self._connection = _lazy(self._enter(), self)
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await finish(self._connection.close())
        finally:
            held.leave(self.holding)

    def begun_by_hand(self, transaction: Transaction | None) -> None:
        self._by_hand = transaction

    def begins_at_once(self, _connection: Connection) -> bool:
        return self._by_hand is not None and _connection.get_transaction() is self._by_hand


class WriteScope(Scope, ABC):
    """A scope with one transaction, committed at the end of the block or rolled back.

    Attributes:
        before_commit: Called with the connection as the last thing inside the transaction; what it raises
            rolls back.
        after_commit: Called when it is committed.
    """

    writes = True

    def __init__(self, pool: Callable[[], Pool]) -> None:
        super().__init__(pool)
        self.before_commit: Callable[[AsyncConnection], Awaitable[None]] | None = None
        self.after_commit: Callable[[], None] | None = None

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether the transaction has begun, so that there will be something to commit."""

    async def _commit(self, commit: Callable[[], Any]) -> None:
        # From here to the end: a commit whose outcome nobody has seen would be repeated for nothing.
        _, cancelled = await to_the_end(commit())
        if self.after_commit is not None:
            self.after_commit()
        if cancelled:
            raise asyncio.CancelledError


class TransactionScope(WriteScope):
    """`db.transaction()`."""

    async def __aenter__(self) -> AsyncConnection:
        self._connection = _lazy(self._enter(), self)
        return self._connection

    @property
    def is_open(self) -> bool:
        return self._connection.in_transaction()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection = self._connection
        try:
            if error is None and self.is_open:
                if self.before_commit is not None:
                    await self.before_commit(connection)
                super().check_commit()
                await self._commit(connection.commit_now)
        finally:
            try:
                await finish(connection.close())
            finally:
                held.leave(self.holding)

    def check_commit(self) -> None:
        raise UsageError(
            "db.transaction() commits at the end of its block, everything or nothing: leave the commit() "
            "out. To commit yourself, use db.connection()"
        )


class SessionScope(WriteScope):
    """`db.session()`."""

    async def __aenter__(self) -> AsyncSession:
        from sqlalchemy import event
        from sqlalchemy.ext.asyncio import AsyncSession

        self._session = AsyncSession(self._enter(), expire_on_commit=False)
        sync = self._session.sync_session
        event.listen(sync, "after_begin", lambda *_: self.started())
        event.listen(sync, "before_commit", lambda *_: self.check_commit())
        event.listen(sync, "after_transaction_end", self._transaction_ended)
        return self._session

    def _transaction_ended(self, _session: object, transaction: Any) -> None:
        if transaction.parent is None:  # the session has given its connection back
            self.holding.connection = False
            self._lost = False

    @property
    def is_open(self) -> bool:
        return self._session.in_transaction()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session = self._session
        try:
            if error is None and self.is_open:
                if self.before_commit is not None:
                    await session.flush()
                    await self.before_commit(await session.connection())
                await self._commit(session.commit)
        finally:
            try:
                await finish(session.close())
            finally:
                held.leave(self.holding)


def _lazy(engine: AsyncEngine, owner: Scope) -> LazyConnection:
    from everloop.resources.lazy import LazyConnection

    return LazyConnection(engine, owner)
