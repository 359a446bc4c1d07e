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
from heapq import heappop, heappush
from random import Random
from typing import Any
from weakref import ref

#: Steps that a schedule may take; one that takes more runs in circles.
MOST_STEPS = 400_000


class Circles(Exception):
    """The simulation makes steps without end."""


class SimTask(asyncio.Task[Any]):
    """A task that hashes by birth: asyncio keeps tasks in sets, which would go by their address."""

    _births = itertools.count()

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._birth = next(SimTask._births)
        super().__init__(*args, **settings)

    def __hash__(self) -> int:
        return self._birth

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(asyncio.BaseEventLoop):
    """One loop of a simulated process; asyncio's own in all but its clock and who steps it."""

    def __init__(self, clockwork: Clockwork, owner: Any, name: str) -> None:
        super().__init__()
        self.clockwork = clockwork
        self.owner = owner
        self.name = name
        self.queue: deque[events.Handle] = deque()
        self.queued = False  # whether it stands among those to be stepped
        self.stops = 0  # how many reasons there are not to step it
        self.dead = False
        self._held: list[Callable[[], object]] = []
        self._tasks: list[ref[SimTask]] = []
        self.complaints: list[dict[str, Any]] = []

    # -- what asyncio asks of a loop ------------------------------------------------------------------------

    def time(self) -> float:
        return self.clockwork.now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = events.Handle(callback, args, self, context)
        if not self.dead:
            self.queue.append(handle)
            if not (self.queued or self.stops):
                self.queued = True
                self.clockwork.runnable.append(self)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_at(self.clockwork.now + max(0.0, delay), callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        timer = events.TimerHandle(when, callback, args, self, context)
        self.clockwork.push(when, self, timer)
        return timer

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        """Leave it: a cancelled timer does nothing when its time comes."""

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None, **_: Any) -> SimTask:
        task = SimTask(coro, loop=self, name=name, context=context)
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

    # -- stepping -------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Run what is ready, as one round of asyncio's loop does."""
        queue = self.queue
        events._set_running_loop(self)
        try:
            for _ in range(len(queue)):
                handle = queue.popleft()
                if not handle._cancelled:
                    handle._run()
                if self.dead or self.stops:
                    break
        finally:
            events._set_running_loop(None)
        self.queued = False
        self.wake()

    def wake(self) -> None:
        """Stand among those to be stepped, if there is something to do."""
        if self.queue and not (self.queued or self.stops or self.dead):
            self.queued = True
            self.clockwork.runnable.append(self)

    def expire(self, timer: events.TimerHandle) -> None:
        """The time of a timer has come."""
        if not (self.dead or timer._cancelled):
            self.queue.append(timer)
            self.wake()

    def stop_stepping(self) -> None:
        """Stand still, for one reason more."""
        self.stops += 1

    def go_on(self) -> None:
        """Let one reason to stand still go."""
        self.stops -= 1
        if not self.stops:
            held, self._held = self._held, []
            for do in held:
                do()
        self.wake()

    def once_it_steps(self, do: Callable[[], object]) -> None:
        """Do what the running step asks for: at once, or when the loop goes on that it has stopped."""
        if self.stops:
            self._held.append(do)
        else:
            do()

    def kill(self) -> None:
        """Never be stepped again."""
        self.dead = True
        self.queue.clear()
        self._held.clear()

    def bury(self) -> None:
        """Close the loop; nothing of it is of interest any more."""
        self.kill()
        self._closed = True


class Clockwork:
    """Virtual time, and who is stepped next."""

    def __init__(self, rng: Random) -> None:
        self.now = 0.0
        self.steps = 0
        self.runnable: list[SimLoop] = []
        self.over = False
        self._rng = rng
        self._timers: list[tuple[float, int, SimLoop | None, Any]] = []
        self._count = itertools.count()

    def push(self, when: float, loop: SimLoop | None, what: Any) -> None:
        heappush(self._timers, (when, next(self._count), loop, what))

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        """Let something happen outside of all processes."""
        heappush(self._timers, (self.now + seconds, next(self._count), None, do))

    def run(self, until: float) -> bool:
        """Go on until `over` is set; False when nothing is left to do, or it is `until`."""
        runnable, timers = self.runnable, self._timers
        while not self.over:
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise Circles(f"no end after {MOST_STEPS} steps, at {self.now:.3f} s")
            if runnable:
                place = int(self._rng.random() * len(runnable)) if len(runnable) > 1 else 0
                loop = runnable.pop(place)
                if loop.dead or loop.stops:
                    loop.queued = False
                else:
                    loop.step()
                continue
            if not timers or timers[0][0] > until:
                return False
            when, _, owner, what = heappop(timers)
            self.now = max(self.now, when)
            if owner is None:
                what()
            else:
                owner.expire(what)
        return True


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing, and return its value."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError(f"{coroutine!r} waits for something")
