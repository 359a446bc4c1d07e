"""The worker: takes leases, runs bodies, and ends without losing anything."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from contextvars import Context
from functools import partial
from itertools import islice

from everloop._core.calls import Event
from everloop._core.policy import SUSPECT
from everloop._core.records import Cancel, Lane, Leased, Outcome, Progress
from everloop.engine.attempt import Attempt
from everloop.engine.executor import Runnable, execute
from everloop.engine.scribe import Scribe
from everloop.engine.slots import Slots
from everloop.engine.turns import TurnLoop

log = logging.getLogger("everloop")

#: Seconds in which bodies that were told to stop should have; who does not is left behind.
UNWINDING = 5.0


class Worker:
    """Runs the leased calls of one session on this loop.

    Args:
        turns: The session's turn loop.
        functions: What this worker serves.
        concurrency: How many bodies run at once; suspended ones do not count.
        now: The store's clock, for timeouts.
        processes: How many bodies run in processes of their own at once.
        scribe: Writes down what the bodies log, if anybody does.
    """

    def __init__(
        self,
        turns: TurnLoop,
        functions: Mapping[Lane, Runnable],
        concurrency: int,
        now: Callable[[], int],
        processes: int = 1,
        scribe: Scribe | None = None,
    ) -> None:
        self._turns = turns
        self._serve(functions)
        self._now = now
        self._scribe = scribe
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.slots = Slots(concurrency)
        self._attempts: dict[str, Attempt] = {}
        self._suspects: set[Attempt] = set()
        self.begun = 0  # calls whose body was started
        self.memory_limit: int | None = None  # bytes, beyond which somebody replaces its process
        self._moved_at = self._loop.time()
        self.draining = False
        self._hurried = False
        self._changed = asyncio.Event()
        self._process_room = processes  # may be negative: what was leased before a function changed its place
        self._in_processes: set[Attempt] = set()
        self._asked_for_processes = False

    # -- as the turn loop sees it --------------------------------------------------------------------

    @property
    def room(self) -> int:
        return 0 if self.draining else self.slots.room

    def wants(self) -> tuple[int, tuple[Lane, ...]]:
        """Say how many calls are wanted now, and of which lanes.

        What runs in processes is asked for in turns of its own, as many as there are processes: others
        would wait here, while another worker has room for them.
        """
        room = self.room
        apart = self._process_lanes
        if not apart:
            return room, self.lanes
        free = min(room, self._process_room - len(self._in_processes))
        if not self._other_lanes:
            return max(0, free), apart
        if free > 0 and not self._asked_for_processes:
            self._asked_for_processes = True
            self._turns.look()  # the others' turn is the next one
            return free, apart
        self._asked_for_processes = False
        return room, self._other_lanes

    @property
    def stillness(self) -> float:
        """Seconds since a body ended."""
        return self._loop.time() - self._moved_at

    @property
    def takes_roots(self) -> bool:
        return self.slots.takes_roots

    @property
    def takes_suspects(self) -> bool:
        # One that awaits its children does not run; its children may be suspects, too.
        return all(attempt.suspended for attempt in self._suspects)

    @property
    def holding(self) -> tuple[str, ...]:
        """The calls whose leases are held for bodies that run."""
        return tuple(id_ for id_, attempt in self._attempts.items() if attempt.stopping != "lost")

    def runs(self, id_: str) -> bool:
        """Tell whether it runs the body of this call."""
        return id_ in self._attempts

    def attempts(self, most: int) -> list[Attempt]:
        """Return the first attempts of those that it holds."""
        return list(islice(self._attempts.values(), most))

    def runs_in_process(self, attempt: Attempt) -> bool:
        """Whether a body has a process of its own."""
        return attempt in self._in_processes

    def begin(self, leased: list[Leased]) -> None:
        """Start the bodies of what was leased."""
        for each in leased:
            if self.draining:  # the turn was under way when that began
                self._turns.settle(Outcome(each.id, each.fence, Event.RELEASE))
            else:
                self._start(each)

    def cancel(self, cancels: list[Cancel]) -> None:
        """Ask running bodies to stop: their cancellation was asked somewhere."""
        for cancel in cancels:
            attempt = self._attempts.get(cancel.id)
            if attempt is not None and attempt.leased.fence == cancel.fence:
                attempt.stop("cancelled", cancel.message)

    def lost(self, ids: list[str]) -> None:
        """Note outcomes that were refused: another worker owns those calls now."""
        log.warning("everloop: %d outcomes came too late; their calls belong to another worker", len(ids))

    def drop_all(self) -> None:
        """The session was reaped: stop every body; nothing of theirs is settled."""
        for attempt in list(self._attempts.values()):
            attempt.stop("lost", "the lease was lost")

    def add_functions(self, functions: Mapping[Lane, Runnable]) -> bool:
        """Serve these too; True when some are new."""
        new = functions.keys() - set(self.lanes)
        self._serve({**self._functions, **functions})
        return bool(new)

    def _serve(self, functions: Mapping[Lane, Runnable]) -> None:
        self._functions = functions
        self.lanes = tuple(functions)
        self._process_lanes = tuple(lane for lane, function in functions.items() if function.run == "process")
        self._other_lanes = tuple(lane for lane in self.lanes if lane not in self._process_lanes)

    # -- bodies -----------------------------------------------------------------------------------------

    def _start(self, leased: Leased) -> None:
        attempt = Attempt(leased, self._suspend, self._resume)
        attempt.on_progress = self._progress
        attempt.scribe = self._scribe
        self._attempts[leased.id] = attempt
        if leased.crashes >= SUSPECT:
            self._suspects.add(attempt)
        function = self._functions[leased.lane]
        if function.run == "process":
            self._in_processes.add(attempt)
        self.slots.start()
        self.begun += 1
        body = self._run(function, attempt)
        attempt.task = self._loop.create_task(body, name=f"{leased.lane.fn} {leased.id}", context=Context())

    async def _run(self, function: Runnable, attempt: Attempt) -> None:
        outcome: Outcome | None = None
        try:
            outcome = await execute(function, attempt, self._now)
        finally:
            attempt.once_added(partial(self._finish, attempt, outcome))

    def _finish(self, attempt: Attempt, outcome: Outcome | None) -> None:
        # The slot is free before the outcome goes: the turn that settles it leases the next.
        self._free(attempt)
        if outcome is not None:
            self._turns.settle(outcome)

    def _free(self, attempt: Attempt) -> None:
        attempt.end()
        if attempt.page is not None and self._scribe is not None:
            self._scribe.ended(attempt)
        self.slots.end()
        self._suspects.discard(attempt)
        self._in_processes.discard(attempt)
        held = self._attempts.get(attempt.leased.id)
        if held is attempt:
            del self._attempts[attempt.leased.id]
        self._moved_at = self._loop.time()
        self._changed.set()
        self._turns.look()

    def _progress(self, progress: Progress) -> None:
        if threading.get_ident() == self._thread:
            self._turns.progress(progress)
        elif not self._loop.is_closed():  # a thread may outlive its call
            self._loop.call_soon_threadsafe(self._turns.progress, progress)

    def _suspend(self) -> None:
        self.slots.suspend()
        self._changed.set()
        self._turns.look()

    def _resume(self) -> None:
        self.slots.resume()

    # -- the end ------------------------------------------------------------------------------------------

    async def drain(self, grace: float) -> None:
        """Take no more, wait for what runs, then unwind the rest and release it.

        Suspended bodies wait for calls that this worker no longer takes, so they are unwound as soon as
        only they are left. Unwinding cancels no call: the next run of the parent re-attaches.
        """
        self.draining = True
        deadline = self._loop.time() + grace
        while self.slots.running > 0 and not self._hurried and self._loop.time() < deadline:
            await self._change(deadline - self._loop.time())
        await self.unwind()

    def hurry(self) -> None:
        """End the patience of a drain: what runs is unwound and released now."""
        self._hurried = True
        self._changed.set()

    async def unwind(self) -> None:
        """Stop every body with a private reason; its call is released, unharmed."""
        self.draining = True
        for attempt in list(self._attempts.values()):
            attempt.stop("shutdown")
        tasks = [a.task for a in self._attempts.values() if a.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=UNWINDING)
        left = [a for a in self._attempts.values() if a.task is not None and not a.task.done()]
        if left:
            stuck = ", ".join(sorted({a.leased.lane.fn for a in left}))
            log.warning("everloop: still running after being asked to stop, and left behind: %s", stuck)

    async def _change(self, within: float) -> None:
        self._changed.clear()
        timer = self._loop.call_later(within, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()
