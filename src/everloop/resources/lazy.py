"""A SQLAlchemy connection that takes its place in the pool at its first statement.

`AsyncConnection` can be made before it is connected, and says so at each use: here each use connects it
first. What has no time to wait (`info`, `get_transaction` and the like) answers for an unused connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Protocol

from sqlalchemy.engine import Dialect, Transaction
from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction
from sqlalchemy.ext.asyncio.base import StartableContext


class Owner(Protocol):
    """The scope that a connection belongs to."""

    def started(self) -> None:
        """Note that a connection has been taken from the pool."""
        ...

    def begun_by_hand(self, transaction: Transaction | None) -> None:
        """Note that the user has called `begin()`."""
        ...

    def check_commit(self) -> None:
        """Refuse a commit that is not the user's to make, or of a transaction that is gone."""
        ...

    def rolled_back(self) -> None:
        """Note that the user has rolled back."""
        ...


class LazyConnection(AsyncConnection):
    """An `AsyncConnection` that starts itself.

    A body that is given a connection and does not use it takes none from the pool; one that waits first
    holds none while it waits.
    """

    __slots__ = ("_over", "_owner", "_starting")

    def __init__(self, engine: AsyncEngine, owner: Owner) -> None:
        super().__init__(engine)
        self._owner = owner
        self._starting = asyncio.Lock()
        self._over = False

    @property
    def is_started(self) -> bool:
        """Whether a statement has taken a connection from the pool."""
        return self.sync_connection is not None

    async def start(self, is_ctxmanager: bool = False) -> AsyncConnection:  # noqa: FBT001, FBT002 - theirs
        """Take a connection from the pool, if that has not happened.

        Raises:
            ResourceClosedError: The block that gave this connection is over.
        """
        if self.sync_connection is None:
            async with self._starting:  # two statements at once start it once
                if self._over:
                    raise ResourceClosedError(
                        "this connection is closed: the `async with` block, or the task, that it was given "
                        "to is over"
                    )
                if self.sync_connection is None:
                    _ = await super().start(is_ctxmanager)
                    self._owner.started()
        return self

    # -- what starts it ---------------------------------------------------------------------------------

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        _ = await self.start()
        return await super().execute(*args, **kwargs)

    async def exec_driver_sql(self, *args: Any, **kwargs: Any) -> Any:
        _ = await self.start()
        return await super().exec_driver_sql(*args, **kwargs)

    async def scalar(self, *args: Any, **kwargs: Any) -> Any:
        _ = await self.start()
        return await super().scalar(*args, **kwargs)

    async def scalars(self, *args: Any, **kwargs: Any) -> Any:
        _ = await self.start()
        return await super().scalars(*args, **kwargs)

    async def run_sync(self, *args: Any, **kwargs: Any) -> Any:
        _ = await self.start()
        return await super().run_sync(*args, **kwargs)

    async def get_raw_connection(self) -> Any:
        _ = await self.start()
        return await super().get_raw_connection()

    async def get_isolation_level(self) -> Any:
        _ = await self.start()
        return await super().get_isolation_level()

    async def execution_options(self, **options: Any) -> Any:
        _ = await self.start()
        return await super().execution_options(**options)

    def stream(self, *args: Any, **kwargs: Any) -> Any:
        return _Later(self, lambda: super(LazyConnection, self).stream(*args, **kwargs))

    def stream_scalars(self, *args: Any, **kwargs: Any) -> Any:
        return _Later(self, lambda: super(LazyConnection, self).stream_scalars(*args, **kwargs))

    def begin(self) -> AsyncTransaction:
        return LazyTransaction(self)

    def begin_nested(self) -> AsyncTransaction:
        return LazyTransaction(self, nested=True)

    def note_begin(self, transaction: Transaction | None) -> None:
        """Tell the scope of a transaction that was begun by hand."""
        self._owner.begun_by_hand(transaction)

    # -- what does not ----------------------------------------------------------------------------------

    async def commit(self) -> None:
        self._owner.check_commit()
        await self.commit_now()

    async def commit_now(self) -> None:
        """Commit, whoever may."""
        if self.is_started:
            await super().commit()

    async def rollback(self) -> None:
        if self.is_started:
            await super().rollback()
            self._owner.rolled_back()

    async def invalidate(self, exception: BaseException | None = None) -> None:
        if self.is_started:
            await super().invalidate(exception)

    async def close(self) -> None:
        self._over = True
        async with self._starting:  # a start that is under way is waited for, or it would leak
            if self.is_started:
                await super().close()

    def in_transaction(self) -> bool:
        return self.is_started and super().in_transaction()

    def in_nested_transaction(self) -> bool:
        return self.is_started and super().in_nested_transaction()

    def get_transaction(self) -> Any:
        return super().get_transaction() if self.is_started else None

    def get_nested_transaction(self) -> Any:
        return super().get_nested_transaction() if self.is_started else None

    @property
    def info(self) -> Any:
        return super().info if self.is_started else {}

    @property
    def closed(self) -> bool:
        return bool(super().closed) if self.is_started else self._over

    @property
    def invalidated(self) -> bool:
        return self.is_started and bool(super().invalidated)

    @property
    def dialect(self) -> Dialect:
        return self.sync_engine.dialect

    @dialect.setter
    def dialect(self, attr: Dialect) -> None:
        self._proxied.dialect = attr

    @property
    def default_isolation_level(self) -> Any:
        return self.sync_engine.dialect.default_isolation_level


class LazyTransaction(AsyncTransaction):
    """The transaction of a `LazyConnection`: beginning it starts the connection."""

    __slots__ = ()

    async def start(self, is_ctxmanager: bool = False) -> AsyncTransaction:  # noqa: FBT001, FBT002 - theirs
        connection = self.connection
        if isinstance(connection, LazyConnection):
            _ = await connection.start()
        _ = await super().start(is_ctxmanager)
        if isinstance(connection, LazyConnection) and not self.nested:
            connection.note_begin(self.sync_transaction)
        return self


class _Later:
    """What SQLAlchemy would have returned, once the connection has started."""

    def __init__(self, connection: LazyConnection, make: Callable[[], StartableContext[Any]]) -> None:
        self._connection = connection
        self._make = make
        self._made: StartableContext[Any] | None = None

    async def _start(self) -> StartableContext[Any]:
        _ = await self._connection.start()
        self._made = self._make()
        return self._made

    async def _get(self) -> Any:
        return await (await self._start())

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._get().__await__()

    async def __aenter__(self) -> Any:
        return await (await self._start()).__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return None if self._made is None else await self._made.__aexit__(kind, error, trace)
