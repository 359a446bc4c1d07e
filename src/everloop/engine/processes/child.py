"""One process that runs bodies, as its worker sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Final

from everloop._core import errors, forks
from everloop.engine.attempt import Attempt
from everloop.engine.executor import RetryAfter
from everloop.engine.processes import wire
from everloop.engine.processes.ends import ProcessDied, RaisedElsewhere, last_words

#: Seconds between asking a body to stop and killing its process; less than an unwinding worker waits.
KILL_AFTER: Final = 3.0
#: Seconds that an idle process gets to close what it has opened.
CLOSE_WITHIN: Final = 3.0
#: Seconds that what a dead process has still said may take to arrive.
_TAIL: Final = 1.0

_PROGRAM: Final = "import sys; sys.path[:] = {path!r}; from everloop._child import main; main({fd}, {parent})"


class Child:
    """A process that runs one body at a time.

    It is a fresh interpreter, not a fork: a fork would inherit locks that threads of this process hold. It
    leads a process group of its own, so that Ctrl-C does not reach it (the worker drains, and says what is
    to stop) and that what a body has started can be killed with it.
    """

    def __init__(self, setup: wire.Setup) -> None:
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[wire.Answer] | None = None
        self._attempt: Attempt | None = None
        self.gone = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None
        self._ours, theirs = socket.socketpair()
        forks.close_in_children(self._ours)  # its end says that the worker is gone
        program = _PROGRAM.format(path=setup.path, fd=theirs.fileno(), parent=os.getpid())
        try:
            # From the loop's own thread: the kernel kills the child when the *thread* that started it ends.
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-c", program],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
        except BaseException:
            self._ours.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        self._waiting = threading.Thread(target=self._wait, name=f"everloop-process-{self.pid}", daemon=True)
        self._waiting.start()
        self._ours.setblocking(False)  # noqa: FBT003 - that is its name
        self._pending = bytearray(wire.frame(setup))
        self._flush()
        self._listening = self._loop.create_task(self._listen(), name=f"everloop-process-{self.pid}")

    @property
    def usable(self) -> bool:
        """Whether it can run another body."""
        return not self.gone.is_set() and self._answer is None

    # -- one call -----------------------------------------------------------------------------------------

    async def run(self, run: wire.Run, attempt: Attempt) -> bytes:
        """Run one call; return the stored form of its value.

        Raises:
            ProcessDied: The process died with it, and nobody here had killed it.
            RaisedElsewhere: The body raised.
            NotStorable, ResultNotStorable, FunctionError: What Everloop refused there.
            RetryAfter: The body asked for it.
            asyncio.CancelledError: The body was cancelled; or it did not stop, and was killed.
        """
        self._attempt, self._answer = attempt, self._loop.create_future()
        try:
            self._send(run)
            stopped = await self._until_answered(self._answer, attempt)
            return self._read(self._answer, attempt, stopped=stopped)
        finally:
            self._attempt = self._answer = None

    async def _until_answered(self, answer: asyncio.Future[wire.Answer], attempt: Attempt) -> bool:
        """Wait for the answer, or the end of the process; tell whether the body was asked to stop."""
        stopped = False
        timer: asyncio.TimerHandle | None = None
        while not answer.done():
            try:
                await asyncio.wait([answer])
            except asyncio.CancelledError:
                # Its slot stays taken until the body has ended, as with a thread; but this one can be killed.
                if not stopped:
                    stopped = True
                    self._send(wire.Stop(attempt.stopping or "shutdown", attempt.message))
                    timer = self._loop.call_later(KILL_AFTER, self.kill)
        if timer is not None:
            timer.cancel()
        return stopped

    def _read(self, answer: asyncio.Future[wire.Answer], attempt: Attempt, *, stopped: bool) -> bytes:
        died = answer.exception()
        if died is not None:
            if stopped:
                raise asyncio.CancelledError(attempt.message)
            raise died
        match answer.result():
            case wire.Value(value, settled):
                attempt.settled_inside = settled
                return value
            case wire.Raised(record, names):
                raise RaisedElsewhere(record, names)
            case wire.Refused(kind, text):
                raise getattr(errors, kind)(text)
            case wire.PutOff(delay):
                raise RetryAfter(delay / 1e6)
            case wire.Cancelled(text):
                raise asyncio.CancelledError(text)

    # -- talking ------------------------------------------------------------------------------------------

    def _send(self, message: wire.ToChild) -> None:
        if self.gone.is_set():
            return
        waiting = bool(self._pending)
        self._pending += wire.frame(message)
        if not waiting:
            self._flush()

    def _flush(self) -> None:
        """Write what the socket takes; the rest when it takes more."""
        try:
            sent = self._ours.send(self._pending) if self._pending else 0
        except BlockingIOError:
            sent = 0
        except OSError:  # it has died: whoever waits for an answer is told
            self._pending.clear()
            sent = 0
        del self._pending[:sent]
        if self._pending:
            self._loop.add_writer(self._ours, self._flush)
        else:
            self._loop.remove_writer(self._ours)

    async def _listen(self) -> None:
        """Take what it says until it says no more."""
        with contextlib.suppress(OSError):
            while head := await self._receive(wire.HEAD):
                self._heard(wire.read_news(await self._receive(wire.length_of(head))))

    async def _receive(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = await self._loop.sock_recv(self._ours, count - len(data))
            if not chunk:
                return b""
            data += chunk
        return bytes(data)

    def _heard(self, news: wire.FromChild) -> None:
        if isinstance(news, wire.Report):
            if self._attempt is not None:
                self._attempt.report(news.done, news.total, news.note)
        elif isinstance(news, wire.Beat):
            if self._attempt is not None:
                self._attempt.beat()
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(news)

    # -- the end ------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait, in a thread, for the end of the process: the only witness that no copy of a pipe can hide."""
        self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop was closed first
            self._loop.call_soon_threadsafe(self._gone)

    def _gone(self) -> None:
        self._ending = self._loop.create_task(self._end(), name=f"everloop-process-{self.pid}-end")

    async def _end(self) -> None:
        """The process is gone: hear what it has still said, then tell who waits."""
        await asyncio.wait([self._listening], timeout=_TAIL)
        self._listening.cancel()  # something that it has started holds its end of the socket
        self._loop.remove_writer(self._ours)
        self._ours.close()
        self.gone.set()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ProcessDied(last_words(self._process.returncode)))

    def kill(self) -> None:
        """Kill it, with all that its body has started."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Let it close what is open there, and see it end."""
        self._send(wire.End())
        timer = self._loop.call_later(CLOSE_WITHIN, self.kill)
        try:
            await self.gone.wait()
        except asyncio.CancelledError:
            self.kill()
            raise
        finally:
            timer.cancel()
        self._waiting.join()
