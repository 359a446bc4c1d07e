"""The open sessions of an app: one per loop, opened when asked or at first use, closed with the loop."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary, WeakSet

from everloop._core import forks
from everloop._core.errors import ClosedError, EverloopError
from everloop._core.records import Lane
from everloop._notices import notice
from everloop.engine.executor import Runnable
from everloop.engine.session import Session
from everloop.engine.worker import Worker

log = logging.getLogger("everloop")

#: Seconds after which a function that no worker serves is mentioned.
PATIENCE = 3.0
#: Concurrency of a worker that was embedded without being asked for.
EMBEDDED = 100


class OpenSession:
    """A session on one loop.

    Attributes:
        automatic: Opened by first use; it lives as long as the loop. Otherwise `depth` blocks hold it.
        ready: Done when the store is open; its exception says why it could not be opened.
        asked: The lanes that calls were submitted to: looked up once whether a worker serves them.
    """

    def __init__(self, session: Session, *, automatic: bool) -> None:
        self.session = session
        self.automatic = automatic
        self.loop = asyncio.get_running_loop()
        self.pid = os.getpid()
        self.opened = False
        self.depth = 0
        self.workers = 0
        self.closing = False
        self.asked: set[Lane] = set()
        self.checks: set[asyncio.Task[None]] = set()
        self.ready: asyncio.Task[None] = asyncio.get_running_loop().create_task(
            self.open(), name="everloop-open"
        )
        self.until_loop_ends: AsyncGenerator[None, None] | None = None

    async def open(self) -> None:
        """Open the store, and the session on it."""
        try:
            await self.session.store.open()
            await self.session.open()
            self.opened = True
        except Exception as error:
            self.session.fail(error)
            raise


class Sessions:
    """Opens and closes the sessions of one app.

    Args:
        make: Makes an unopened session on an unopened store.
        functions: What a worker of these queues serves; None stands for every queue.
        close_resources: Closes what the app opened on the running loop.
        hint: The command that starts a worker.
        embeds: Tells whether a use without a worker may run one in this process.
    """

    def __init__(
        self,
        make: Callable[[], Session],
        functions: Callable[[tuple[str, ...] | None], Mapping[Lane, Runnable]],
        close_resources: Callable[[], Awaitable[None]],
        hint: Callable[[], str],
        *,
        embeds: Callable[[], bool],
    ) -> None:
        self._make = make
        self._functions = functions
        self._close_resources = close_resources
        self._hint = hint
        self._embeds = embeds
        self._pid = os.getpid()
        self._open: WeakKeyDictionary[asyncio.AbstractEventLoop, OpenSession] = WeakKeyDictionary()
        self._latest: OpenSession | None = None
        self._closed: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        self.dead: dict[int, str] = {}  # sessions of other processes that have died, and how
        forks.begin_anew(self)
        atexit.register(self._finish_all)

    def after_fork(self) -> None:
        """Begin anew: the parent's sessions go on there."""
        forks.leave(dict(self._open), self._latest)
        self._pid = os.getpid()
        self._open = WeakKeyDictionary()
        self._latest = None
        self._closed = WeakSet()

    def bury(self, session: int, how: str) -> None:
        """Take over from a session of another process, which has died in this way."""
        self.dead[session] = how
        for entry in list(self._open.values()):
            entry.session.look_for_the_dead()

    # -- finding --------------------------------------------------------------------------------------------

    def current(self, *, automatic: bool = True) -> OpenSession:
        """Return the running loop's session; start opening one when there is none.

        Raises:
            ClosedError: It is being closed.
        """
        latest = self._latest
        loop = asyncio.get_running_loop()
        if (
            latest is not None
            and latest.loop is loop
            and latest.opened
            and not latest.closing
            and latest.pid == os.getpid()
        ):
            return latest  # every call passes here
        if os.getpid() != self._pid:
            self.after_fork()  # of one that Python was not told of
        entry = self._open.get(loop)
        if entry is None and automatic and loop in self._closed:
            raise ClosedError(
                "the app is closed: its `async with` block on this loop has ended. Keep the block open "
                "around "
                "everything that uses the app"
            )
        if entry is None or (entry.ready.done() and _failed(entry.ready)):
            entry = OpenSession(self._make(), automatic=automatic)
            self._open[loop] = entry
            if automatic:
                self._end_with_loop(entry, loop)
        elif entry.closing:
            raise ClosedError("the app is being closed: its `async with` block, or its loop, is ending")
        self._latest = entry
        return entry

    async def opened(self) -> Session:
        """Return the running loop's session once it is open."""
        entry = self.current()
        await asyncio.shield(entry.ready)
        return entry.session

    # -- holding open ---------------------------------------------------------------------------------------

    async def acquire(self) -> OpenSession:
        """Hold the running loop's session open; re-entrant."""
        entry = self.current(automatic=False)
        entry.depth += 1
        try:
            await asyncio.shield(entry.ready)
        except BaseException:
            entry.depth -= 1
            raise
        return entry

    async def release(self, grace: float = 0.0) -> None:
        """Let it go; the last to do so closes it."""
        entry = self._open[asyncio.get_running_loop()]
        entry.depth -= 1
        if entry.depth == 0 and not entry.automatic:
            await self._close(entry, grace)

    @asynccontextmanager
    async def worker(
        self, queues: tuple[str, ...] | None, concurrency: int, grace: float
    ) -> AsyncGenerator[Worker]:
        """Hold the session open and serve from it; on leaving, drain for `grace` seconds."""
        entry = await self.acquire()
        entry.workers += 1
        try:
            yield await entry.session.start_worker(self._functions(queues), concurrency)
        finally:
            entry.workers -= 1
            if not entry.closing and entry.workers == 0:
                await entry.session.stop_worker(grace)
            await self.release()

    async def _close(self, entry: OpenSession, grace: float = 0.0) -> None:
        if entry.closing:
            return
        entry.closing = True
        for check in entry.checks:
            check.cancel()
        try:
            await _open_after_all(entry)
            if not _failed(entry.ready):
                await entry.session.close(grace)
            await self._close_resources()
        finally:
            await entry.session.store.close()
            loop = asyncio.get_running_loop()
            if self._open.get(loop) is entry:
                del self._open[loop]
            if self._latest is entry:
                self._latest = None
            self._closed.add(loop)

    # -- ending with the loop -------------------------------------------------------------------------------

    def _end_with_loop(self, entry: OpenSession, loop: asyncio.AbstractEventLoop) -> None:
        """Close an automatic session when its loop ends, however the loop is run.

        `asyncio.run` closes asynchronous generators at its end, so one of ours is the hook; a loop that
        is driven by hand (`run_until_complete`) is finished when it is closed, or else at exit.
        """
        entry.until_loop_ends = self._until_loop_ends(entry)
        entry.ready.add_done_callback(lambda _: entry.checks.add(loop.create_task(self._arm(entry))))
        close = loop.close

        def close_after_us() -> None:
            self._finish(loop, entry)
            close()

        loop.close = close_after_us  # type: ignore[method-assign]  # no hook tells of the end of a loop

    async def _arm(self, entry: OpenSession) -> None:
        if entry.until_loop_ends is not None:
            await anext(entry.until_loop_ends)

    async def _until_loop_ends(self, entry: OpenSession) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self._close(entry)

    def _finish_all(self) -> None:
        for loop, entry in list(self._open.items()):
            if entry.automatic:
                self._finish(loop, entry)

    def _finish(self, loop: asyncio.AbstractEventLoop, entry: OpenSession) -> None:
        if os.getpid() == self._pid and not entry.closing and not loop.is_closed() and not loop.is_running():
            loop.run_until_complete(self._close(entry))

    # -- who serves -----------------------------------------------------------------------------------------

    def asked_for(self, entry: OpenSession, lane: Lane) -> None:
        """A call went to `lane`: make sure that somebody serves it, or say that nobody does."""
        if lane not in entry.asked:
            entry.asked.add(lane)
            check = asyncio.get_running_loop().create_task(self._check(entry, lane), name="everloop-check")
            entry.checks.add(check)
            check.add_done_callback(entry.checks.discard)

    async def _check(self, entry: OpenSession, lane: Lane) -> None:
        try:
            await self._look_for_a_worker(entry, lane)
        except EverloopError as error:
            # Who waits for the call is told by its session; the next call of this lane looks again.
            log.debug("everloop: whether a worker serves %s could not be seen: %s", lane.fn, error)
            entry.asked.discard(lane)

    async def _look_for_a_worker(self, entry: OpenSession, lane: Lane) -> None:
        await asyncio.shield(entry.ready)
        session = entry.session
        may_embed = entry.automatic and self._embeds()
        if not may_embed:
            await asyncio.sleep(PATIENCE)
        while (lane.queue, lane.fn) in await session.store.serving(lane.app):
            if session.worker is not None and lane in session.worker.lanes:
                return
            # One that has died is listed until its lease ends: look again while somebody waits here.
            await asyncio.sleep(PATIENCE)
            if not session.waiting:
                entry.asked.discard(lane)
                return
        functions = self._functions(None)
        if may_embed and lane in functions:
            await session.start_worker(functions, EMBEDDED)
            notice(
                "no worker was running, so this process runs its tasks itself; to run them apart: "
                f"{self._hint()}"
            )
        else:
            command = self._hint()
            if lane not in functions and lane.fn in {each.fn for each in functions}:
                # No function names this queue: a worker serves it when it is told to.
                command = f"{command.removesuffix('`')} --queues {lane.queue}`"
            notice(f"no worker serves queue {lane.queue!r} of {lane.app!r} with {lane.fn!r}: run {command}")


async def _open_after_all(entry: OpenSession) -> None:
    """See the store opened where a loop ends meanwhile, for the calls that wait for it."""
    if entry.ready.cancelled() and entry.asked:  # asyncio ends every task before anybody cleans up
        entry.ready = asyncio.get_running_loop().create_task(entry.open(), name="everloop-open")
    await asyncio.wait([entry.ready])
    if entry.asked and not entry.ready.cancelled() and (error := entry.ready.exception()) is not None:
        log.error("everloop: calls were not submitted, for the store could not be opened: %s", error)


def _failed(ready: asyncio.Task[None]) -> bool:
    return ready.done() and (ready.cancelled() or ready.exception() is not None)
