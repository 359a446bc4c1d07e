"""A pool with the methods of aiomysql's, and Everloop's pool below it."""

from __future__ import annotations

import asyncio
import logging
import os
from types import TracebackType
from typing import Any, NoReturn, Self
from weakref import WeakSet

from aiomysql import Error, OperationalError  # type: ignore[import-untyped]  # it has no types
from sqlalchemy.engine import URL
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn

from everloop._core.errors import ClosedError, UsageError
from everloop.aiomysql.opening import Opening
from everloop.resources import held
from everloop.resources.engine import CountingPool
from everloop.resources.engine import Pool as EnginePool
from everloop.resources.opened import OpenHere
from everloop.resources.patience import finish
from everloop.resources.refusal import CannotConnect

log = logging.getLogger("everloop")

#: Seconds that the server gets to roll back what a connection that is given back has left open.
_ROLLBACK = 10.0
#: The code of aiomysql for a server that cannot be reached.
_CANNOT_CONNECT = 2003
_ACQUIRE = "everloop.aiomysql has no `{}`; write `async with pool.acquire() as conn:`"


class Pool:
    """A pool of aiomysql connections, made by `create_pool`.

    It belongs to its process and loop. One that nobody closes is closed when its loop ends.
    """

    def __init__(
        self,
        here: OpenHere,
        minsize: int,
        maxsize: int,
        recycle: float,
        patience: float,
        connect: dict[str, Any],
    ) -> None:
        url = URL.create(
            "mysql+aiomysql",
            username=connect.get("user"),
            host=connect.get("host", "localhost"),
            port=connect.get("port", 3306),
            database=connect.get("db"),
        )
        options: dict[str, Any] = {
            "pool_size": maxsize,
            "max_overflow": 0 if maxsize else -1,
            "pool_timeout": patience,
            # SQLAlchemy's flag would let `rowcount` count rows that an UPDATE has found, not changed.
            "connect_args": {"client_flag": 0, **connect},
        }
        if recycle >= 0:
            options["pool_recycle"] = recycle
        self._engine = EnginePool(url.render_as_string(hide_password=False), None, options, own=False)
        if isinstance(self._engine.engine.pool, CountingPool):
            self._engine.engine.pool.larger = "give create_pool(...) a larger maxsize"
        self.shown = self._engine.shown
        self._autocommit = connect.get("autocommit", False)
        self._echo = bool(connect["echo"])
        self._sizes = minsize, maxsize
        self._here = here
        self._home = os.getpid(), asyncio.get_running_loop()
        self._used: dict[Any, tuple[PoolProxiedConnection, held.Holding]] = {}
        self._terminated: WeakSet[Any] = WeakSet()
        self._returning: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._closing = False
        self._closed = False

    def __repr__(self) -> str:
        return f"<everloop.aiomysql.Pool {self.shown} size={self.size} free={self.freesize}>"

    # -- what aiomysql's pool tells ----------------------------------------------------------------------

    @property
    def minsize(self) -> int:
        """How many connections were opened with the pool."""
        return self._sizes[0]

    @property
    def maxsize(self) -> int | None:
        """How many connections there are at most; None without a limit."""
        return self._sizes[1] or None

    @property
    def size(self) -> int:
        """How many connections there are, in use or free."""
        return self._engine.statistics().size

    @property
    def freesize(self) -> int:
        """How many connections are free."""
        counts = self._engine.statistics()
        return counts.size - counts.in_use

    @property
    def echo(self) -> bool:
        """Whether statements are logged."""
        return self._echo

    @property
    def closed(self) -> bool:
        """Whether every connection is closed."""
        return self._closed

    # -- connections --------------------------------------------------------------------------------------

    def acquire(self) -> Opening[Any]:
        """Take a connection: `async with pool.acquire() as conn:`, or `conn = await pool.acquire()`.

        Raises:
            PoolTimeout: None was free in time (also TimeoutError).
            OperationalError: None could be opened.
            RuntimeError: The pool is closed.
            UsageError: The pool belongs to another loop or process.
        """
        return Opening(self._acquire(), self.release)

    async def _acquire(self) -> Any:
        self._check_home()
        if self._closing:
            raise ClosedError(f"{self!r} is closed: no connection can be taken from it")
        holding = held.Holding(self.shown, "", own=False)
        fairy = await self._take()
        conn: Any = fairy.driver_connection
        self._used[conn] = fairy, holding
        held.enter(holding)
        holding.begin()
        holding.connection = True
        return conn

    def _check_home(self) -> None:
        pid, loop = self._home
        if os.getpid() != pid or asyncio.get_running_loop() is not loop:
            raise UsageError(
                f"{self!r} belongs to the process and the event loop that created it: call create_pool() in "
                "each, for example in an @app.resource"
            )

    async def _take(self) -> PoolProxiedConnection:
        try:
            return await self._engine.engine.raw_connection()
        except CannotConnect as error:
            # As aiomysql says it, for those who look at the class or the code.
            cause: Any = error.orig
            if isinstance(cause, Error) and cause.args:
                raise type(cause)(cause.args[0], str(error)) from error
            raise OperationalError(_CANNOT_CONNECT, str(error)) from error

    async def fill(self) -> None:
        """Open the connections that are to be there from the start."""
        taken: list[PoolProxiedConnection] = []
        try:
            for _ in range(self.minsize):
                taken.append(await self._take())  # noqa: PERF401 - those before a failure are given back
        finally:
            for fairy in taken:
                await finish(greenlet_spawn(fairy.close))

    def release(self, conn: Any) -> asyncio.Future[None]:
        """Give a connection back; what it has not committed is rolled back.

        It need not be awaited. A connection that is closed, or in the middle of a result, is replaced.

        Raises:
            UsageError: It was not taken from this pool, or has been given back.
        """
        if conn in self._terminated:
            self._terminated.discard(conn)
            done: asyncio.Future[None] = self._home[1].create_future()
            done.set_result(None)
            return done
        if conn not in self._used:
            raise UsageError(f"{conn!r} was not taken from {self!r}, or has been given back already")
        fairy, holding = self._used.pop(conn)
        held.leave(holding)
        task = self._home[1].create_task(self._give_back(conn, fairy), name="everloop-release")
        self._returning.add(task)
        task.add_done_callback(self._returned)
        return asyncio.shield(task)

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._returning.discard(task)
        self._changed.set()

    async def _give_back(self, conn: Any, fairy: PoolProxiedConnection) -> None:
        reason: BaseException | None = None
        try:
            async with asyncio.timeout(_ROLLBACK):
                await self._tidy(conn)
                if not conn.closed:
                    await greenlet_spawn(fairy.close)
                    return
            if conn._close_reason:  # noqa: SLF001 - it was cancelled: what runs on the server is ended
                reason = asyncio.CancelledError()
        except Exception as error:
            log.exception("everloop: a connection of %r could not be given back; it is closed", self)
            conn.close()
            reason = error
        if fairy.is_valid:
            await greenlet_spawn(fairy.invalidate, reason)

    async def _tidy(self, conn: Any) -> None:
        """Undo what the next user would meet: a half-read result, another autocommit mode."""
        if conn.closed:
            return
        result = conn._result  # noqa: SLF001 - nothing public tells
        if result is not None and result.unbuffered_active:
            conn.close()
        elif self._autocommit is not None and conn.get_autocommit() != bool(self._autocommit):
            await conn.rollback()  # to switch autocommit on would commit
            await conn.autocommit(self._autocommit)

    # -- the end ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give out no more connections; `await wait_closed()` closes those there are."""
        self._closing = True

    def terminate(self) -> None:
        """Close at once, the connections in use too."""
        self.close()
        for conn in list(self._used):
            conn.close()
            _ = self.release(conn)
            self._terminated.add(conn)

    async def wait_closed(self) -> None:
        """Wait until every connection has been given back, and close them.

        Raises:
            RuntimeError: `close()` has not been called.
        """
        if not self._closing:
            raise RuntimeError("call pool.close() first, then `await pool.wait_closed()`")
        while self._used or self._returning:
            self._changed.clear()
            _ = await self._changed.wait()
        self._here.forget(self)
        await finish(self._engine.close())
        self._closed = True

    async def leave(self) -> None:
        """Close at the end of an `async with`."""
        self.close()
        await finish(self.wait_closed())

    async def end(self) -> None:
        """Close at the end of the loop."""
        self.terminate()
        await self.wait_closed()

    def drop(self) -> None:
        """Be closed: the loop is gone, and the connections with it."""
        self._closing = self._closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()

    # -- what there is not --------------------------------------------------------------------------------

    def clear(self) -> NoReturn:
        """Refuse: there is no `clear()`."""
        raise UsageError(
            "everloop.aiomysql has no pool.clear(): broken connections are replaced when they are met. To "
            "close all, close the pool and create another"
        )

    def __await__(self) -> NoReturn:
        raise UsageError(_ACQUIRE.format("with await pool as conn"))

    def __enter__(self) -> NoReturn:
        raise UsageError(_ACQUIRE.format("with pool"))

    def __exit__(self, *_: object) -> None:
        """Exist, so that `with pool:` reaches `__enter__`."""
