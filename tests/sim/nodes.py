"""Simulated processes: each has its loops, its keeper, and its line to the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from everloop import _sessions
from everloop._core import ids
from everloop._core.codec import errors
from everloop.engine import keeper, session
from everloop.engine.keeper import Keeper
from tests.sim.faults import Fault
from tests.sim.loop import SimLoop
from tests.sim.server import START, Server, SimStore

#: Seconds for which a session lives without renewal.
LEASE = 2.0
#: Faults that need a process that can be asked to end.
_ALL = frozenset(Fault)
_NO_DRAIN = _ALL - {Fault.DRAIN}


class Node:
    """One simulated process.

    Args:
        server: Its store.
        kind: "worker" or "client".
        name: Says which, and which life of it.
        on_crash: Called when it was killed.
    """

    def __init__(self, server: Server, kind: str, name: str, on_crash: Callable[[Node], None]) -> None:
        self.server = server
        self.kind = kind
        self.name = name
        self.dead = False
        self.stopping: asyncio.Event | None = None
        self.draining = False
        self.main_task: asyncio.Task[Any] | None = None
        self.skew = server.rng.choice((0, 0, -20_000, 20_000))
        self.sessions: list[int] = []
        self.disturbed = -1e9  # when something last happened to it that may cost it its lease
        self.loops: list[SimLoop] = []
        self.corpses: list[asyncio.Task[Any]] = []
        self._on_crash = on_crash
        self._stands_still = False
        self.stopped = -1e9  # when it, or its loop alone, last began to stand still
        self.busy_until = -1e9  # after it stood still, it has a while to do what it missed
        self.loop = self.new_loop("main")

    def new_loop(self, name: str) -> SimLoop:
        """Return a loop in one more thread of this process."""
        loop = SimLoop(self.server.clockwork, self, name)
        if self._stands_still:
            loop.stop_stepping()
        self.loops.append(loop)
        return loop

    def store(self) -> SimStore:
        return SimStore(self.server, self)

    def start(self, main: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin the process."""
        self.main_task = self.loop.create_task(main, name=self.name)
        return self.main_task

    # -- what may happen to it -------------------------------------------------------------------------------

    def may_suffer(self) -> frozenset[Fault]:
        """Return the faults that make sense now."""
        return _ALL if self.stopping is not None and not self.draining else _NO_DRAIN

    def disturb(self) -> None:
        """Note that something happened to it."""
        self.disturbed = self.server.clockwork.now

    def crash(self) -> None:
        """Kill it: no `finally` runs; what it leaves behind is kept, and never stepped again."""
        if self.dead:
            return
        self.dead = True
        self.disturb()
        for loop in self.loops:
            self.corpses += loop.unfinished()
            loop.kill()
        self._on_crash(self)

    def pause(self) -> float:
        """Stop it for longer than its lease; return for how long."""
        seconds = LEASE * self.server.rng.uniform(*self.server.pause)
        self.disturb()
        if self.server.drains:
            self.drain()
        if not (self._stands_still or self.dead):
            self._stands_still = True
            self.stopped = self.server.clockwork.now
            self.busy_until = self.server.clockwork.now + seconds + 1.0
            for loop in self.loops:
                loop.stop_stepping()
            self.server.clockwork.after(seconds, self._continue)
        return seconds

    def _continue(self) -> None:
        self.disturb()
        self._stands_still = False
        self.server.clockwork.after(1.001, self.server.watch.on_quiet)
        for loop in self.loops:
            loop.go_on()

    def block(self, seconds: float) -> None:
        """Let the running body block its loop, as `time.sleep` does; the keeper's thread goes on."""
        self.stopped = self.server.clockwork.now
        self.loop.stop_stepping()
        self.server.clockwork.after(seconds, self.loop.go_on)

    def drain(self) -> None:
        """Ask it to end, as SIGTERM does."""
        if self.stopping is not None and not self.draining:
            self.draining = True
            self.loop.call_soon(self.stopping.set)

    # -- afterwards ------------------------------------------------------------------------------------------

    def bury(self) -> None:
        """Let go of what a process that was killed, or is stuck, has left behind."""
        for loop in self.loops:
            self.corpses += loop.unfinished()
            loop.bury()
        for task in self.corpses:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is pending, on purpose
            # Its `finally` blocks run here, when the simulation is over and nobody looks any more.
            with contextlib.suppress(BaseException):
                task.get_coro().close()  # type: ignore[union-attr]  # ours are coroutines
        self.corpses.clear()


class SimKeeper(Keeper):
    """A keeper whose thread is a loop of the simulated process."""

    def start(self) -> None:
        owner = asyncio.get_running_loop()
        assert isinstance(owner, SimLoop)
        self._main_loop = owner
        self._task = owner.owner.new_loop("keeper").create_task(self._keep())

    def stop(self) -> None:
        """End it; the owner's loop stands still until it has ended, as in `Thread.join`."""
        self._stop.set()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._woken.set)
        if not self._task.done():
            self._main_loop.stop_stepping()
            self._task.add_done_callback(lambda _: self._main_loop.go_on())


#: The virtual time of the schedule that runs, for the modules that look at a clock of the machine.
TIME = SimpleNamespace(monotonic=float, time_ns=lambda: START * 1_000 + round(TIME.monotonic() * 1e9))


class _Flag:
    """A `threading.Event` of which nobody waits for anything."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set


class _NoThread:
    """A thread that is never started: its loop is stepped instead."""

    def __init__(self, **_: object) -> None: ...


@contextlib.contextmanager
def simulated() -> Iterator[None]:
    """Put virtual time, threads and chance in the place of the machine's, in the modules that use them."""
    before = ids._random, ids._counter, ids._prefix
    try:
        with (
            patch.object(session, "Keeper", SimKeeper),
            patch.object(keeper, "time", TIME),
            patch.object(session, "time", TIME),
            patch.object(ids, "time", TIME),
            patch.object(_sessions, "notice", lambda _: None),
            # What takes time, and is nothing to the simulation: tracebacks, threads that never start, and the
            # weak set of all tasks, which is nobody's business here but the loop's.
            patch.object(asyncio.tasks._scheduled_tasks, "add", bool, create=True),
            patch.object(asyncio.tasks._scheduled_tasks, "discard", bool, create=True),
            patch.object(errors, "_traceback", lambda *_: ""),
            patch.object(keeper, "threading", SimpleNamespace(Thread=_NoThread, Event=_Flag, get_ident=int)),
        ):
            yield
    finally:
        ids._random, ids._counter, ids._prefix = before
