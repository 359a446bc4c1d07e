"""`app.sync`: the app for code without a loop, such as Flask, Django, and scripts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, Unpack, overload

from everloop._bridge import Bridge, Caller
from everloop._core.errors import UsageError
from everloop._core.policy import Delay, check_delay
from everloop._options import Options
from everloop._workers import WorkerInfo
from everloop.engine.attempt import CURRENT, Attempt

if TYPE_CHECKING:
    from everloop._call import Call
    from everloop._functions import TaskFunction
    from everloop._history import Progress
    from everloop._task import Task
    from everloop.store.protocol import SyncConnection, UserConnection

R = TypeVar("R")
T = TypeVar("T")


class Asynchronous(Protocol):
    """The app, as this needs it."""

    async def submit(
        self, call: Call[R], *, connection: UserConnection | None = None, **options: Unpack[Options]
    ) -> Task[R]: ...
    async def submit_many(
        self,
        calls: Iterable[Call[R]],
        *,
        connection: UserConnection | None = None,
        **options: Unpack[Options],
    ) -> list[Task[R]]: ...
    @overload
    async def get_task(self, id: str, of: TaskFunction[..., R], /) -> Task[R]: ...
    @overload
    async def get_task(self, id: str, /) -> Task[Any]: ...
    async def cancel(self, id: str, msg: str | None = None) -> bool: ...
    async def retry(self, id: str) -> Task[Any]: ...
    async def counts(self, queue: str | None = None) -> dict[str, int]: ...
    async def workers(self) -> list[WorkerInfo]: ...


class SyncTask(Generic[R]):
    """The handle of a call, for code without a loop; shaped like `concurrent.futures.Future`.

    Example:
        ```python
        from everloop import App

        app = App("sums", "memory://")

        @app.task
        async def add(x: int, y: int) -> int:
            return x + y

        task = app.sync.submit(add(1, 2))
        print(task.result(timeout=10), task.state)
        ```
    """

    __module__ = "everloop"

    def __init__(self, sync: Sync, task: Task[R], loop: asyncio.AbstractEventLoop) -> None:
        self._sync = sync
        self._known = task
        self._loop = loop
        self._pid = os.getpid()

    @property
    def id(self) -> str:
        """The call's id."""
        return self._known.id

    @property
    def name(self) -> str:
        """The task function's name."""
        return self._known.name

    @property
    def state(self) -> str:
        """The state as last seen: final ones are exact, others as of submission or `refresh()`."""
        return self._known.state

    @property
    def attempts(self) -> int:
        """How many runs have ended in the task's code, as last seen."""
        return self._known.attempts

    @property
    def progress(self) -> Progress | None:
        """What the call last reported, as of `refresh()`."""
        return self._known.progress

    @property
    def created(self) -> datetime | None:
        """When it was submitted, as of `refresh()`."""
        return self._known.created

    def __repr__(self) -> str:
        return f"<everloop.SyncTask {self.name} {self.id} {self.state}>"

    def done(self) -> bool:
        """Tell whether it has ended, as last seen."""
        return self._known.done() and not self._was_left()

    def cancelled(self) -> bool:
        """Tell whether it has ended by a cancellation, as last seen."""
        return self._known.cancelled() and not self._was_left()

    def result(self, timeout: Delay | None = None) -> R:
        """Wait for the end, and return the value.

        Args:
            timeout: Seconds to wait; the call goes on after them.

        Raises:
            TimeoutError: It has not ended within that time.
            TaskFailed: It has failed; also an instance of the class that was raised.
            asyncio.CancelledError: It was cancelled.
        """
        if self.done():
            return self._known.result()
        self._sync.check("task.result", "task")
        task = self._task()
        limit = None if timeout is None else check_delay("result(timeout=)", timeout) / 1e6
        waiting = f"{self.name}() has not ended"
        return self._sync.do(_value(task), self._loop, limit, waiting)

    def exception(self, timeout: Delay | None = None) -> BaseException | None:
        """Wait for the end, and return what it has raised, or None.

        Raises:
            TimeoutError: It has not ended within that time.
            asyncio.CancelledError: It was cancelled.
        """
        try:
            self.result(timeout)
        except Exception as error:
            if self.done() and not self.cancelled() and self._known.exception() is error:
                return error
            raise
        return None

    def refresh(self) -> None:
        """Read state, attempts and progress from the store.

        Raises:
            TaskNotFound: No call has this id.
        """
        self._sync.check("task.refresh", "task.refresh()")
        self._sync.do(self._task().refresh(), self._loop)

    def cancel(self, msg: str | None = None) -> bool:
        """Cancel the call; True when it was live. A running one ends when its body has."""
        return self._sync.cancel(self.id, msg)

    def _was_left(self) -> bool:
        """Whether its loop has ended, and so only the waiting there."""
        return self._loop.is_closed() and (not self._known.done() or self._known.cancelled())

    def _task(self) -> Task[R]:
        """Return the task of the loop that runs: after a fork, or a `close`, another one's is nobody's."""
        if self._pid != os.getpid() or self._was_left():
            loop, task = self._sync.again(self.id)
            self._known, self._loop, self._pid = task, loop, os.getpid()
        return self._known


async def _value(task: Task[R]) -> R:
    return await task


class Sync:
    """What an app can do with calls, without a loop; see `App.sync`.

    Each method waits in the calling thread for what the method of the same name of `App` does on a loop in
    a thread of the app's own. That begins with the first use, and ends with the program. Any number of
    threads may use it. After a fork (of a web server with several processes) the child begins its own.

    Inside a `def` task the worker's own loop does it: calls belong to the task as if it had awaited them.
    """

    __module__ = "everloop"

    def __init__(self, app: Asynchronous) -> None:
        self._app = app
        self._bridge = Bridge()

    def submit(
        self, call: Call[R], *, connection: SyncConnection | None = None, **options: Unpack[Options]
    ) -> SyncTask[R]:
        """Store a call durably, and return its detached task; see `App.submit`.

        Args:
            call: The call.
            connection: Submit in the transaction of this connection to the store's own database: a
                SQLAlchemy connection or session, or a plain one of sqlite3, psycopg or PyMySQL. It is used
                in the calling thread alone.
            **options: See `everloop.Options`.
        """
        with _used_up([call]):
            loop = self._loop("submit")
            if connection is None:
                task = self.do(self._app.submit(call, **options), loop)
            else:
                caller = Caller()
                lent = caller.lend(connection)
                task = caller.wait(self._started(self._app.submit(call, connection=lent, **options), loop))
        return SyncTask(self, task, loop)

    def submit_many(
        self,
        calls: Iterable[Call[R]],
        *,
        connection: SyncConnection | None = None,
        **options: Unpack[Options],
    ) -> list[SyncTask[R]]:
        """Store many calls durably, and return their detached tasks, in order; see `App.submit_many`."""
        made = list(calls)  # here: what makes them is the caller's code
        with _used_up(made):
            loop = self._loop("submit_many")
            if connection is None:
                tasks = self.do(self._app.submit_many(made, **options), loop)
            else:
                caller = Caller()
                lent = caller.lend(connection)
                work = self._app.submit_many(made, connection=lent, **options)
                tasks = caller.wait(self._started(work, loop))
        return [SyncTask(self, task, loop) for task in tasks]

    def run(self, call: Call[R], **options: Unpack[Options]) -> R:
        """Submit a call, wait for its end, and return its value.

        Ctrl-C ends the waiting, and the call goes on. Inside a `def` task it is owned by that, as if it were
        awaited.

        Raises:
            TaskFailed: It has failed; also an instance of the class that was raised.
            asyncio.CancelledError: It was cancelled, or the task in which this stands was.
        """
        with _used_up([call]):
            loop = self._loop("run")
            if CURRENT.get() is None:
                return self.submit(call, **options).result()
            call = call.options(**options) if options else call
            return self.do(_owned(call), loop)

    @overload
    def get_task(self, id: str, of: TaskFunction[..., R], /) -> SyncTask[R]: ...
    @overload
    def get_task(self, id: str, /) -> SyncTask[Any]: ...
    def get_task(self, id: str, of: TaskFunction[..., Any] | None = None, /) -> SyncTask[Any]:
        """Return the task of a call submitted by any process, as it is now; see `App.get_task`.

        Raises:
            TaskNotFound: No call has this id.
        """
        loop = self._loop("get_task")
        wanted = self._app.get_task(id) if of is None else self._app.get_task(id, of)
        return SyncTask(self, self.do(wanted, loop), loop)

    def again(self, id: str) -> tuple[asyncio.AbstractEventLoop, Task[Any]]:
        """Return a task anew, and the loop that it belongs to."""
        loop = self._loop("get_task")
        return loop, self.do(self._app.get_task(id), loop)

    def cancel(self, id: str, msg: str | None = None) -> bool:
        """Cancel the call with this id; True when it was live.

        Raises:
            TaskNotFound: No call has this id.
        """
        loop = self._loop("cancel")
        return self.do(self._app.cancel(id, msg), loop)

    def retry(self, id: str) -> SyncTask[Any]:
        """Submit a finished call anew, and return the new task.

        Raises:
            TaskNotFound: No call has this id.
            NotRetryable: It has not finished.
        """
        loop = self._loop("retry")
        return SyncTask(self, self.do(self._app.retry(id), loop), loop)

    def counts(self, queue: str | None = None) -> dict[str, int]:
        """Count this app's calls by state; every state is a key."""
        loop = self._loop("counts")
        return self.do(self._app.counts(queue), loop)

    def workers(self) -> list[WorkerInfo]:
        """List this app's workers, as `await app.workers()` does."""
        loop = self._loop("workers")
        return self.do(self._app.workers(), loop)

    def close(self) -> None:
        """End the loop of this; the next use begins another. It ends by itself with the program."""
        self._bridge.close()

    # -- inside -------------------------------------------------------------------------------------------

    def _loop(self, name: str) -> asyncio.AbstractEventLoop:
        """Return the loop to use: of the worker whose task this is in, or of our own thread.

        Raises:
            UsageError: A loop runs in this thread.
        """
        self.check(f"app.sync.{name}", "call" if name == "run" else f"app.{name}(...)")
        attempt = CURRENT.get()
        if attempt is not None and attempt.task is not None:
            return attempt.task.get_loop()
        return self._bridge.loop()

    def check(self, name: str, instead: str) -> None:
        """Refuse to block a loop.

        Raises:
            UsageError: One runs in this thread.
        """
        try:
            _ = asyncio.get_running_loop()
        except RuntimeError:
            return
        raise UsageError(
            f"{name}() was called while an event loop runs in this thread, which it would block; there, "
            f"write `await {instead}`"
        )

    def do(
        self,
        work: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        timeout: float | None = None,
        waiting: str = "",
    ) -> T:
        """Wait for `work` on `loop`."""
        value: T = Caller().wait(self._started(work, loop), timeout, waiting)
        return value

    def _started(
        self, work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop
    ) -> Callable[[Caller], None]:
        attempt = CURRENT.get()
        whole = work if attempt is None else _in_body(attempt, work)
        return lambda caller: caller.start(whole, loop)


@contextmanager
def _used_up(calls: Sequence[Call[Any]]) -> Generator[None]:
    """Note of calls that are refused, and that is raised, that nobody has to await them."""
    try:
        yield
    except BaseException:
        for call in calls:
            call.refused()
        raise


async def _owned(call: Call[R]) -> R:
    return await call


async def _in_body(attempt: Attempt, work: Coroutine[Any, Any, T]) -> T:
    """Let what asks the body to stop end its waiting here, too: its thread hears nothing."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in one
    try:
        attempt.waits_in(task)
        return await work
    finally:
        work.close()
        attempt.waited_in(task)
