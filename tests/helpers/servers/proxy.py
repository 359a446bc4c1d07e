"""A TCP proxy before a server, to make the network fail at a chosen moment."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from tests.helpers.servers.place import free_port

HOST = "127.0.0.1"
CHUNK = 1 << 16
#: Closing with this sends a reset at once, instead of an orderly end.
RESET = struct.pack("ii", 1, 0)
#: No request to the proxy itself takes longer.
LIMIT_S = 10.0

T = TypeVar("T")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class _Trap:
    """A cut that waits for its moment."""

    predicate: Callable[[bytes], bool]
    #: Whether what the client sent still reaches the server.
    forward: bool
    #: Whether what the server has said so far is the whole answer.
    answered: Callable[[bytes], bool]
    done: Future[bytes] = field(default_factory=Future)

    def springs(self, data: bytes) -> bool:
        return not self.done.cancelled() and self.predicate(data) and self.done.set_running_or_notify_cancel()


class _Link:
    """One client's connection, and its own connection to the server."""

    def __init__(self, client: Streams, server: Streams, proxy: Proxy) -> None:
        self.client = client
        self.server = server
        self.proxy = proxy
        self.trap: _Trap | None = None
        self.held = b""
        self.task = asyncio.current_task()

    async def run(self) -> None:
        """Forward until both sides have ended or the link is cut."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up())
                group.create_task(self._down())
            # Both have said all that they had to say: it is to arrive.
            for _, writer in (self.client, self.server):
                writer.close()
                await writer.wait_closed()
        except* OSError as errors:
            self._spoil(errors.exceptions[0])
        finally:
            self._spoil(ConnectionError("the connection was cut before the server had answered"))
            self.cut()

    def cut(self) -> None:
        """Reset both connections."""
        for _, writer in (self.client, self.server):
            _reset(writer)

    async def _up(self) -> None:
        reader, writer = self.client[0], self.server[1]
        while data := await reader.read(CHUNK):
            await self.proxy.flowing.wait()
            self.trap = self.trap or self.proxy.sprung(data)
            if self.trap is not None and not self.trap.forward:
                self._catch(self.trap)
                return
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def _down(self) -> None:
        reader, writer = self.server[0], self.client[1]
        while data := await reader.read(CHUNK):
            await self.proxy.flowing.wait()
            if self.trap is None:
                writer.write(data)
                await writer.drain()
                continue
            self.held += data
            try:
                whole = self.trap.answered(self.held)
            except Exception as error:  # of the test: it is told where the test waits
                self._spoil(error)
                self.cut()
                return
            if whole:
                self._catch(self.trap)
                return
        self._spoil(ConnectionError(f"the server ended without an answer; it said {self.held!r}"))
        writer.write_eof()

    def _catch(self, trap: _Trap) -> None:
        self.trap = None
        self.cut()
        trap.done.set_result(self.held)

    def _spoil(self, error: Exception) -> None:
        """Tell who waits for the cut, if anybody does, that it cannot come any more."""
        trap, self.trap = self.trap, None
        if trap is not None:
            trap.done.set_exception(error)


class Proxy:
    """A proxy on a loopback port of its own, in a thread of its own; to be used from any other.

    Example:
        with Proxy(server.port) as proxy:
            connection = psycopg.connect(proxy.url(url))
            cut = proxy.cut_after(lambda data: b"COMMIT" in data)
            ...  # the client commits, and loses its connection
            cut.result(timeout=10)  # what the server had answered
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = free_port()
        #: Set while bytes pass.
        self.flowing = asyncio.Event()
        self._links: set[_Link] = set()
        self._traps: list[_Trap] = []
        self._listener: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Begin to forward."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()
        try:
            self.go_on()
            self.accept()
        except BaseException:
            self.close()
            raise
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut all connections and end."""
        if self._loop is None or self._thread is None:
            return
        self.refuse()
        self.cut()
        self._do(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop, self._thread = None, None

    def url(self, url: str) -> str:
        """Return the URL of the same database through the proxy."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}{HOST}:{self.port}").geturl()

    @property
    def connections(self) -> int:
        """How many connections pass through it now."""
        return self._do(self._count())

    def cut(self) -> None:
        """Reset all connections, on both sides."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Refuse new connections; those that exist go on."""
        self._do(self._refuse())

    def accept(self) -> None:
        """Accept connections again."""
        self._do(self._accept())

    def stall(self) -> None:
        """Hold back all bytes of both sides, in their order; connections stay."""
        self._do(self._let(flow=False))

    def go_on(self) -> None:
        """Let bytes pass again, those first that were held back."""
        self._do(self._let(flow=True))

    def cut_after(
        self,
        predicate: Callable[[bytes], bool],
        answered: Callable[[bytes], bool] = bool,
    ) -> Future[bytes]:
        """Lose the answer to what a client says: the server has done it, and the client cannot know.

        The first chunk of a client for which `predicate` is true is forwarded; when the server has answered,
        that connection is reset, and the client gets nothing of the answer. Once only.

        Args:
            predicate: Judges what a client has sent, as it arrives: a long statement may come in pieces.
            answered: Judges all that the server has sent since; by default anything is an answer. A client
                that sends before it has its last answer needs more: what the right one ends with, say.

        Returns:
            Done with the answer after the cut; `cancel()` disarms it. It fails with what `predicate` or
            `answered` raises, and when the connection ends without an answer.
        """
        return self._arm(_Trap(predicate, forward=True, answered=answered))

    def cut_before(self, predicate: Callable[[bytes], bool]) -> Future[bytes]:
        """Lose what a client says: the server never gets the first chunk for which `predicate` is true."""
        return self._arm(_Trap(predicate, forward=False, answered=bool))

    # ---------------------------------------------------------------- in the thread of the loop

    def sprung(self, data: bytes) -> _Trap | None:
        """Take the trap out that this chunk springs."""
        for trap in self._traps:
            try:
                springs = trap.springs(data)
            except Exception as error:  # of the test: it is told where the test waits
                self._traps.remove(trap)
                trap.done.set_exception(error)
                return None
            if springs:
                self._traps.remove(trap)
                return trap
        return None

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            what.close()
            raise ConnectionError("the proxy is not running: it was not started, or was closed; call start()")
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(LIMIT_S)

    def _arm(self, trap: _Trap) -> Future[bytes]:
        self._do(self._add(trap))
        return trap.done

    async def _add(self, trap: _Trap) -> None:
        self._traps.append(trap)

    async def _count(self) -> int:
        return len(self._links)

    async def _cut(self) -> None:
        links = list(self._links)
        for link in links:
            link.cut()
        await _ended({link.task for link in links if link.task is not None})

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _accept(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._connected, HOST, self.port)

    async def _let(self, *, flow: bool) -> None:
        if flow:
            self.flowing.set()
        else:
            self.flowing.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = await asyncio.open_connection(HOST, self.target)
            link = _Link((reader, writer), server, self)
            self._links.add(link)
            try:
                await link.run()
            finally:
                self._links.discard(link)
        except OSError:
            pass  # as if the client had reached the dead server itself
        finally:
            _reset(writer)

    async def _finish(self) -> None:
        """End the tasks of the connections."""
        await _ended({task for task in asyncio.all_tasks() if task is not asyncio.current_task()})


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
