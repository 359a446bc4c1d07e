"""A loop in a thread of its own, and the threads that wait for what it does."""

from __future__ import annotations

import asyncio
import atexit
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from everloop._core import forks
from everloop._core.errors import ClosedError, OptionError, UsageError

if TYPE_CHECKING:
    from everloop.store.protocol import SyncConnection, UserConnection
    from everloop.store.sql.runners.hand import Hand

T = TypeVar("T")
_Work = Callable[[], None]

#: Seconds that a closing loop gets, which is longer than the app in it takes.
CLOSE_WITHIN = 30.0


class Bridge:
    """Runs a loop in a thread from the first use on; a fork begins its own."""

    def __init__(self) -> None:
        self._begin()
        forks.begin_anew(self)
        atexit.register(self.close)

    def after_fork(self) -> None:
        """Begin anew: the thread is another process's, and a lock may have been held when that forked."""
        forks.leave(self._thread, self._loop, self._stop)
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop, which runs."""
        with self._lock:
            if self._thread is None:
                self._ready.clear()
                self._thread = threading.Thread(target=self._main, name="everloop-sync", daemon=True)
                self._thread.start()
            self._ready.wait()
            assert self._loop is not None  # noqa: S101 - set before it is ready
            return self._loop

    def _main(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._stop.wait()

    def close(self) -> None:
        """End the loop; what the app has open on it is closed with it."""
        with self._lock:
            thread, loop, stop = self._thread, self._loop, self._stop
            self._thread = None
        if thread is not None and loop is not None and stop is not None:
            loop.call_soon_threadsafe(stop.set)
            thread.join(CLOSE_WITHIN)


class Caller:
    """A thread that waits for a coroutine on a loop, and does meanwhile what that needs done in it."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._future: Future[Any] | None = None

    def start(self, coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> None:
        """Start what is waited for, in the context of this thread."""
        try:
            self._future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError as error:
            coroutine.close()
            raise ClosedError("the loop that this task belongs to has ended: the app is closed") from error
        self._future.add_done_callback(lambda _: self._work.put(None))

    def wait(self, start: Callable[[Caller], None], timeout: float | None = None, waiting: str = "") -> Any:
        """Start, wait for the end, and return the value.

        Raises:
            TimeoutError: It has not ended; the waiting is cancelled.
        """
        start(self)
        future = self._future
        assert future is not None  # noqa: S101 - it was started
        try:
            while (work := _next(self._work, timeout)) is not None:
                work()
            return future.result()
        except queue.Empty:
            future.cancel()
            raise TimeoutError(f"{waiting} within {timeout:g} s; it goes on") from None
        except CancelledError:
            raise asyncio.CancelledError from None
        except KeyboardInterrupt:
            future.cancel()
            raise

    # -- connections of this thread -----------------------------------------------------------------------

    def lend(self, connection: SyncConnection) -> UserConnection:
        """Return a connection that a store can use from its loop, and that is used in this thread.

        Drivers refuse any other thread, or are not safe in two.

        Raises:
            OptionError: It cannot be used, or belongs to a loop.
        """
        from everloop.store.sql.runners.borrowed import borrow

        if type(connection).__name__.startswith(("Async", "async_")):
            raise OptionError(
                f"app.sync takes a synchronous connection, not {connection!r:.100}: with that, write "
                "`await app.submit(..., connection=...)` on its loop"
            )
        borrowed = borrow(connection)
        lent = replace(borrowed, run=partial(self._run, borrowed.run))
        return cast("UserConnection", lent)  # a store takes what is borrowed already

    async def _run(self, run: Callable[[Callable[[Hand], Any]], Any], work: Callable[[Hand], Any]) -> Any:
        done: Future[Any] = Future()

        def here() -> None:
            try:
                done.set_result(_at_once(run(work)))
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                done.set_exception(error)

        self._work.put(here)
        return await asyncio.wrap_future(done)


def _next(work: queue.SimpleQueue[_Work | None], timeout: float | None) -> _Work | None:
    return work.get(timeout=timeout)


def _at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing: that of a synchronous connection."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    work.close()
    raise UsageError(
        "app.sync takes a synchronous connection, and this one waits for a loop: use `await app.submit(...)` "
        "there"
    )
