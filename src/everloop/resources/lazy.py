"""A SQLAlchemy connection that takes its place in the pool at its first statement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.ext.asyncio.base import StartableContext


class LazyConnection(AsyncConnection):
    """An `AsyncConnection` that starts itself.

    A body that is given a connection and does not use it takes none from the pool; one that waits first
    holds none while it waits.
    """

    __slots__ = ("_begin",)

    def __init__(self, engine: AsyncEngine, begin: Callable[[LazyConnection], Awaitable[None]]) -> None:
        super().__init__(engine)
        self._begin = begin

    @property
    def started(self) -> bool:
        """Whether a statement has taken a connection from the pool."""
        return self.sync_connection is not None

    async def start_now(self) -> None:
        """Take a connection from the pool, if that has not happened."""
        if self.sync_connection is None:
            await self._begin(self)

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        await self.start_now()
        return await super().execute(*args, **kwargs)

    async def exec_driver_sql(self, *args: Any, **kwargs: Any) -> Any:
        await self.start_now()
        return await super().exec_driver_sql(*args, **kwargs)

    async def scalar(self, *args: Any, **kwargs: Any) -> Any:
        await self.start_now()
        return await super().scalar(*args, **kwargs)

    async def scalars(self, *args: Any, **kwargs: Any) -> Any:
        await self.start_now()
        return await super().scalars(*args, **kwargs)

    async def run_sync(self, *args: Any, **kwargs: Any) -> Any:
        await self.start_now()
        return await super().run_sync(*args, **kwargs)

    async def get_raw_connection(self) -> Any:
        await self.start_now()
        return await super().get_raw_connection()

    async def execution_options(self, **options: Any) -> Any:
        await self.start_now()
        return await super().execution_options(**options)

    async def commit(self) -> None:
        if self.started:
            await super().commit()

    async def rollback(self) -> None:
        if self.started:
            await super().rollback()

    def in_transaction(self) -> bool:
        return self.started and super().in_transaction()

    def stream(self, *args: Any, **kwargs: Any) -> Any:
        return _Later(self, lambda: super(LazyConnection, self).stream(*args, **kwargs))

    def stream_scalars(self, *args: Any, **kwargs: Any) -> Any:
        return _Later(self, lambda: super(LazyConnection, self).stream_scalars(*args, **kwargs))

    def begin(self) -> Any:
        return _Later(self, super().begin)

    def begin_nested(self) -> Any:
        return _Later(self, super().begin_nested)


class _Later:
    """What SQLAlchemy would have returned, once the connection has started."""

    def __init__(self, connection: LazyConnection, make: Callable[[], StartableContext[Any]]) -> None:
        self._connection = connection
        self._make = make
        self._made: StartableContext[Any] | None = None

    async def _start(self) -> StartableContext[Any]:
        await self._connection.start_now()
        self._made = self._make()
        return self._made

    async def _get(self) -> Any:
        return await (await self._start())

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._get().__await__()

    async def __aenter__(self) -> Any:
        return await (await self._start()).__aenter__()

    async def __aexit__(self, *exc: object) -> Any:
        if self._made is not None:
            return await self._made.__aexit__(*exc)
        return None
