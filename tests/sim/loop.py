"""Virtual time: many event loops in one thread, stepped by one clockwork in an order that a seed decides.

Each simulated process has loops of its own. A loop that is stopped (SIGSTOP, a body that blocks it) keeps
what it has to do and is not stepped; one that is killed is never stepped again. Nothing is thrown into what
it leaves behind: a process that was killed runs no `finally`.
"""

from __future__ import annotations

import asyncio
import itertools
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Any
from weakref import ref

#: Steps that a schedule may take; one that takes more runs in circles.
MOST_STEPS = 400_000


class Circles(Exception):
    """The simulation makes steps without end."""


class Handle(partial[None]):
    """What a loop has to call, in its context. Made and called hundreds of times in a schedule: in C."""

    _cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled


class SimTask(asyncio.Task[Any]):
    """A task that hashes by birth: asyncio keeps tasks in sets, which would go by their address."""

    _births = itertools.count()
    _birth: int
    born: float

    def __hash__(self) -> int:
        return self._birth


class SimLoop(asyncio.AbstractEventLoop):
    """One loop of a simulated process: of asyncio's, what Everloop and asyncio use of it, on virtual time."""

    def __init__(self, clockwork: Clockwork, owner: Any, name: str) -> None:
        self.clockwork = clockwork
        self.owner = owner
        self.name = name
        self.queue: deque[Handle] = deque()
        self.stops = 0  # how many reasons there are not to step it
        self.listed = False  # whether it stands among those to be stepped
        self.idle = True  # Invariant: neither listed nor stopped
        self.dead = False
        self._held: list[Callable[[], object]] = []
        self._tasks: list[ref[SimTask]] = []
        self.complaints: list[dict[str, Any]] = []
        self.create_future = partial(asyncio.Future, loop=self)  # type: ignore[method-assign]  # no frame

    # -- what asyncio asks of a loop ------------------------------------------------------------------------

    get_debug = staticmethod(bool)  # type: ignore[assignment]  # False, without a frame: each future asks

    def time(self) -> float:
        return self.clockwork.now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = Handle((copy_context() if context is None else context).run, callback, *args)
        self.queue.append(handle)
        if self.idle:
            self.idle = False
            self.listed = True
            self.clockwork.runnable.append(self)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = Handle((copy_context() if context is None else context).run, callback, *args)
        work = self.clockwork
        heappush(work.timers, (work.now + max(0.0, delay), next(work.count), self, handle))
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = Handle((copy_context() if context is None else context).run, callback, *args)
        heappush(self.clockwork.timers, (when, next(self.clockwork.count), self, handle))
        return handle

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None, **_: Any) -> SimTask:
        task = SimTask.__new__(SimTask)
        task._birth = next(SimTask._births)
        task.born = self.clockwork.now
        task.__init__(coro, loop=self, name=name, context=context)  # type: ignore[misc]  # it hashes itself
        self._tasks.append(ref(task))
        return task

    def unfinished(self) -> list[SimTask]:
        """Return the tasks that have not ended, oldest first."""
        return [task for known in self._tasks if (task := known()) is not None and not task.done()]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            self.complaints.append(context)

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        return self.dead

    # -- stepping -------------------------------------------------------------------------------------------

    def complain(self, handle: Handle, error: Exception) -> None:
        """Note what has failed, as asyncio does."""
        self.call_exception_handler({"message": f"in {handle}", "exception": error})

    def wake(self) -> None:
        """Stand among those to be stepped, if there is something to do."""
        if self.stops or self.listed:
            return
        self.listed = bool(self.queue)
        self.idle = not self.listed
        if self.listed:
            self.clockwork.runnable.append(self)

    def stop_stepping(self) -> None:
        """Stand still, for one reason more."""
        self.stops += 1
        self.idle = False

    def go_on(self) -> None:
        """Let one reason to stand still go."""
        self.stops -= 1
        if not self.stops:
            held, self._held = self._held, []
            for do in held:
                do()
        self.wake()

    def once_it_goes_on(self, do: Callable[[], object]) -> None:
        """Do what the running step asks for when the loop goes on that it has stopped."""
        self._held.append(do)

    def kill(self) -> None:
        """Never be stepped again."""
        if not self.dead:
            self.dead = True
            self.stop_stepping()
        self.queue.clear()
        self._held.clear()

    def bury(self) -> None:
        """Close the loop; nothing of it is of interest any more."""
        self.kill()
        self._tasks.clear()
        del self.create_future  # it holds the loop


class Clockwork:
    """Virtual time, and who is stepped next."""

    def __init__(self, rng: Random) -> None:
        self.now = 0.0
        self.runnable: list[SimLoop] = []
        self.over = False
        self._rng = rng
        self.timers: list[tuple[float, int, SimLoop | None, Any]] = []
        self.count = itertools.count()
        self._steps_left = MOST_STEPS

    def time(self) -> float:
        return self.now

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        """Let something happen outside of all processes."""
        heappush(self.timers, (self.now + seconds, next(self.count), None, do))

    def run(self, until: float) -> bool:
        """Go on until `over` is set; False when nothing is left to do, or it is `until`."""
        runnable, timers, random = self.runnable, self.timers, self._rng.random
        run_on = events._set_running_loop
        while not self.over:
            if runnable:
                self._step(runnable, random)
                continue
            if not timers or timers[0][0] > until:
                return self.over
            when, _, owner, what = heappop(timers)
            self.now = max(self.now, when)
            if owner is None:
                what()
            elif owner.stops:
                owner.queue.append(what)
            elif not what._cancelled:
                run_on(owner)
                try:
                    what()
                except Exception as error:
                    owner.complain(what, error)
                run_on(None)
        return True

    def _step(self, runnable: list[SimLoop], random: Callable[[], float]) -> None:
        """Call one thing of one loop, and of another, until none has anything to do now."""
        most = self._steps_left
        run_on = events._set_running_loop
        while runnable:
            most -= 1
            place = int(random() * len(runnable)) if len(runnable) > 1 else 0
            loop = runnable[place]
            if not loop.stops:
                run_on(loop)
                handle = loop.queue.popleft()
                if not handle._cancelled:
                    try:
                        handle()
                    except Exception as error:
                        loop.complain(handle, error)
            if loop.stops or not loop.queue:
                del runnable[place]  # what was called has added at the end, if at all
                loop.listed = False
                loop.idle = not loop.stops
            if most < 0 or self.over:
                break
        run_on(None)
        self._steps_left = most
        if most < 0:
            raise Circles(f"at {self.now:.4f} s: stuck: no end after {MOST_STEPS} steps")


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing, and return its value."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError(f"{coroutine!r} waits for something")
