"""The program of a process in which a worker runs CPU work.

Bodies (`def`) run in the main thread, where a signal can interrupt them; the loop, with the app's sessions
and resources and every `async def`, in one of its own; a third thread reads what the worker says. When the
worker is gone, so is this process, whatever its body does: the kernel sees to it on Linux, and the reading
thread anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import Context
from importlib import import_module
from typing import Any, Final, ParamSpec, TypeVar

from everloop import _app
from everloop._core.codec import dump_error
from everloop._core.errors import FunctionError, NotStorable, ResultNotStorable
from everloop._core.names import class_name
from everloop._functions import TaskFunction
from everloop._runner import IMPORTING
from everloop.engine.attempt import CURRENT, Attempt
from everloop.engine.executor import RetryAfter, own_frames
from everloop.engine.processes import here, wire

P = ParamSpec("P")
T = TypeVar("T")

_PR_SET_PDEATHSIG: Final = 1
#: Seconds within which one sign of life is enough.
BEAT_EVERY: Final = 0.05


class MainThread(Executor):
    """Runs work in the main thread, one after the other, and can interrupt what runs."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], None]] | None] = queue.SimpleQueue()
        self._latest: Future[Any] | None = None
        self._ident = threading.main_thread().ident or 0
        self._running: Future[Any] | None = None
        self._wanted: Future[Any] | None = None
        signal.signal(signal.SIGTERM, self._interrupted)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            try:
                self._running = future
                self._check(future)
                value = fn(*args, **kwargs)
                self._running = None
            except BaseException as error:  # noqa: BLE001 - carried to who waits for it
                self._running = None
                future.set_exception(error)
            else:
                future.set_result(value)

        self._latest = future
        self._work.put((future, work))
        return future

    def _check(self, future: Future[Any]) -> None:
        if self._wanted is future:  # asked to stop before its first step
            raise asyncio.CancelledError

    def interrupt(self) -> None:
        """Raise `CancelledError` in what was submitted last, also where it waits in a system call."""
        self._wanted = self._latest
        if self._wanted is not None and not self._wanted.done():
            signal.pthread_kill(self._ident, signal.SIGTERM)

    def _interrupted(self, _number: int, _frame: object) -> None:
        # A SIGTERM from elsewhere (to all processes of a service) is the worker's to mind: it drains.
        if self._wanted is not None and self._wanted is self._running:
            self._wanted = None
            raise asyncio.CancelledError

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Do nothing: the app closes, and the main thread goes on until it is told to end."""

    def serve(self) -> None:
        """Run what is submitted until `end`."""
        while (item := self._work.get()) is not None:
            future, work = item
            try:
                work()
            except asyncio.CancelledError as error:  # it came while the body was ending
                if not future.done():
                    future.set_exception(error)

    def end(self) -> None:
        self._work.put(None)


class ChildProcess:
    """This process."""

    def __init__(self, sock: socket.socket, setup: wire.Setup) -> None:
        self._sock = sock
        self._setup = setup
        self._sending = threading.Lock()
        self._bodies = MainThread()
        self._ready = threading.Event()
        self._ended = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._attempt: Attempt | None = None
        self._beat_at = -BEAT_EVERY

    def run(self) -> None:
        """Serve until the worker says that it is enough."""
        loop = threading.Thread(target=self._main, name="everloop-loop", daemon=True)
        loop.start()
        self._ready.wait()
        threading.Thread(target=self._read, name="everloop-orders", daemon=True).start()
        self._bodies.serve()
        loop.join()

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._bodies.end()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        await self._ended.wait()

    # -- what the worker says -------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read orders, in a thread: a body may keep every other busy."""
        loop = self._loop
        assert loop is not None  # noqa: S101 - it runs before this thread does
        while True:
            order = wire.receive(self._sock)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                match order:
                    case wire.Run():
                        loop.call_soon_threadsafe(self._begin, order)
                    case wire.Stop():
                        loop.call_soon_threadsafe(self._stop_body, order)
                    case wire.End():
                        loop.call_soon_threadsafe(self._ended.set)
                    case _:
                        _die()

    def _begin(self, order: wire.Run) -> None:
        loop = asyncio.get_running_loop()
        attempt = self._attempt = Attempt(order.leased, _nothing, _nothing)
        attempt.in_child = True
        attempt.on_progress = lambda p: self._say(wire.Report(p.done, p.total, p.note))
        attempt.on_beat = self._beat
        self._beat()
        attempt.task = loop.create_task(self._run(order, attempt), name=order.home.fn, context=Context())

    def _stop_body(self, stop: wire.Stop) -> None:
        attempt = self._attempt
        if attempt is not None:
            attempt.stop(stop.reason, stop.message)
            self._bodies.interrupt()

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._beat_at > BEAT_EVERY:
            self._beat_at = now
            self._say(wire.Beat())

    def _say(self, news: wire.FromChild) -> None:
        with self._sending, contextlib.suppress(OSError):  # the worker is gone, and so is this, soon
            self._sock.sendall(wire.frame(news))

    # -- one call -------------------------------------------------------------------------------------------

    async def _run(self, order: wire.Run, attempt: Attempt) -> None:
        CURRENT.set(attempt)
        attempt.began = True
        answer: wire.Answer
        try:
            function = self._find(order.home)
            value = await function.invoke_here(attempt)
            answer = wire.Value(value, attempt.settled_inside)
        except RetryAfter as error:
            answer = wire.PutOff(error.delay)
        except (NotStorable, ResultNotStorable, FunctionError) as error:
            answer = wire.Refused(type(error).__name__, str(error))
        except asyncio.CancelledError as error:
            answer = wire.Cancelled(str(error))
        except BaseException as error:  # noqa: BLE001 - it is told
            names = [class_name(cls) for cls in type(error).__mro__]
            answer = wire.Raised(dump_error(error, skip_frames=own_frames(error)), names)
        self._attempt = None
        sys.stdout.flush()
        self._say(answer)

    def _find(self, home: wire.Home) -> TaskFunction[..., Any]:
        """Find a function by importing what declares it.

        Raises:
            FunctionError: It is not there.
        """
        for place in home.modules:
            _import(place, home)
        if self._setup.level is not None:
            # Only now: what the user's modules set up when they are imported goes first.
            logging.basicConfig(level=self._setup.level, format=self._setup.form or logging.BASIC_FORMAT)
        for app in list(_app.APPS):
            function = app.functions.get(home.fn) if app.name == home.app else None
            if function is not None:
                app.run_bodies_in(self._bodies)
                return function
        raise FunctionError(
            f"{home.fn}() cannot run in a process: importing {_names(home)} there does not declare it in the "
            f"app {home.app!r}. Declare it (and the app) at the top level of a module, not inside a function "
            'and not under `if __name__ == "__main__":`'
        )


def _names(home: wire.Home) -> str:
    return " and ".join(repr(place.file or place.name) for place in home.modules)


def _import(place: wire.Place, home: wire.Home) -> None:
    if place.name in sys.modules:
        return
    IMPORTING.append(place.file or place.name)
    try:
        if place.file:
            _import_file(place)
        else:
            import_module(place.name)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        raise FunctionError(
            f"{home.fn}() cannot run in a process: {place.file or place.name} could not be imported there: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        IMPORTING.pop()


def _import_file(place: wire.Place) -> None:
    """Import the program that was started, under the name by which a worker would know it."""
    spec = importlib.util.spec_from_file_location(place.name, place.file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place.file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[place.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[place.name]
        raise


def _nothing() -> None:
    """Suspend or resume nothing: a body in a process keeps its slot."""


def _die() -> None:
    """The worker is gone: end at once, with all that the body has started."""
    with contextlib.suppress(OSError):
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _die_with(parent: int) -> None:
    """Let the kernel kill this process when its worker ends, where it can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it has ended in between
        _die()


def main(fd: int, parent: int, *, die_with: bool = True) -> None:
    """Run the program.

    Args:
        fd: The socket on which the worker talks.
        parent: The worker's process.
        die_with: Whether to ask the kernel to end this with the worker, where it can.
    """
    if die_with:
        _die_with(parent)
    os.set_inheritable(fd, False)  # noqa: FBT003 - that is its name
    here.IN_CHILD = True
    # A handler that does nothing, and not SIG_IGN: what a body starts would inherit that.
    signal.signal(signal.SIGINT, lambda *_: None)
    sock = socket.socket(fileno=fd)
    setup = wire.receive(sock)
    if not isinstance(setup, wire.Setup):
        _die()
        return
    sys.path[:] = setup.path
    sys.argv[:] = setup.argv
    ChildProcess(sock, setup).run()
