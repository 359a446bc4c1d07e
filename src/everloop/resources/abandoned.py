"""What cancelled tasks have left running on a MySQL server.

The server does not notice that its client has gone before it writes the answer: the statement runs on, with
its locks, for as long as it takes. PostgreSQL's drivers send a cancel request themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

log = logging.getLogger("everloop")

#: Seconds for one round: a connection, and a KILL for each.
PATIENCE = 5.0
#: Tells one server from another behind the same address, where the same number is somebody else's.
_IDENTITY = "SELECT @@hostname, @@port, @@server_id"
_UNKNOWN_THREAD = 1094


class Abandoned:
    """Ends the statements of one pool that nobody waits for, through one more connection at a time.

    Args:
        connect: Opens a driver's connection, with the rights of the pool's own.
    """

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._servers: dict[int, Any] = {}
        self._left: dict[int, Any] = {}
        self._task: asyncio.Task[None] | None = None

    async def identify(self, connection: Any) -> None:
        """Note on which server a new connection of the pool is."""
        connection.everloop_server = await _identity(connection)

    def add(self, connection: Any) -> None:
        """End what runs on a connection that has been closed."""
        server = getattr(connection, "everloop_server", None)
        if server is not None:
            self._left[connection.thread_id()] = server
            self._begin()

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._end_all(), name="everloop-kill")

    async def finish(self) -> None:
        """Wait until there is nothing left, for a bounded time."""
        if self._left:
            self._begin()  # the one that ran may have been cancelled with the rest of the program
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def _end_all(self) -> None:
        while self._left:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._end_round()
            except Exception as error:  # noqa: BLE001 - the pool works on without it
                log.warning(
                    "everloop: %d cancelled statement(s) may run on, on the database server: %s",
                    len(self._left),
                    str(error) or type(error).__name__,
                )
                self._left.clear()

    async def _end_round(self) -> None:
        connection = await self._connect()
        try:
            here = await _identity(connection)
            while self._left:
                thread, server = next(iter(self._left.items()))
                if server == here:
                    await _kill(connection, thread)
                _ = self._left.pop(thread, None)
        finally:
            connection.close()


async def _identity(connection: Any) -> Any:
    async with connection.cursor() as cursor:
        _ = await cursor.execute(_IDENTITY)
        return await cursor.fetchone()


async def _kill(connection: Any, thread: int) -> None:
    """End a connection of ours: with its statement, its transaction and its locks go too."""
    async with connection.cursor() as cursor:
        try:
            _ = await cursor.execute(f"KILL {thread:d}")
        except Exception as error:
            if not error.args or error.args[0] != _UNKNOWN_THREAD:
                raise
