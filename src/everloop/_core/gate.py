"""The write gate: one fair line, per file and process, for all who write an SQLite file.

SQLite lets one writer in at a time and does not queue the others, so a busy engine would starve the
user's transactions, or they it. Threads and coroutines stand in the same line here; between processes
the file's own lock decides.

The turn of a coroutine is *offered*, and is its own once its loop has taken the offer. Handing it over
outright does not work: a loop that is blocked by the user's code would keep the file from the thread
that renews this process's leases, which is there for just that case. A thread that finds an offer
untaken for `SLOW` seconds goes first; the coroutine keeps its place behind it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from everloop._core.errors import StoreUnavailable

#: Seconds after which a thread passes a coroutine whose loop does not answer.
SLOW = 0.05


class Place:
    """A place in the line of a gate; `leave` gives it up, and the gate with it. Idempotent.

    Its holder is made a text only when somebody has waited for too long.
    """

    __slots__ = ("_gate", "_wake", "holder", "offered", "taken")

    def __init__(self, gate: WriteGate, wake: Callable[[], None] | None, holder: object) -> None:
        self._gate = gate
        self._wake = wake  # None in a thread, which looks for itself
        self.holder = holder
        self.offered = 0.0
        self.taken = False

    def leave(self) -> None:
        """Give the place up; from any thread."""
        self._gate.leave(self)

    def wake(self) -> None:
        """Tell a coroutine of its offer."""
        if self._wake is not None:
            self._wake()

    @property
    def in_thread(self) -> bool:
        """Whether a thread stands here, and not a coroutine."""
        return self._wake is None

    @property
    def is_slow(self) -> bool:
        """Whether a coroutine has not taken its offer in a reasonable time."""
        return not (self.taken or self.in_thread) and time.monotonic() - self.offered > SLOW


class WriteGate:
    """A first-come, first-served lock for threads and coroutines alike.

    Example:
        ```python
        from everloop._core.gate import WriteGate

        gate = WriteGate("shop.db")
        with gate.hold(timeout=1):
            print("writing")
        ```
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._changed = threading.Condition()
        # Invariant: while anybody is in the line, `_turn` is somebody's; only `_turn` may be taken.
        self._turn: Place | None = None
        self._line: deque[Place] = deque()

    def __repr__(self) -> str:
        return f"<WriteGate {self.name}: {'held' if self._turn else 'free'}, {len(self._line)} waiting>"

    # -- threads ----------------------------------------------------------------------------------------

    @contextmanager
    def hold(self, timeout: float, holder: object = "the store") -> Generator[None]:
        """Hold the gate from a thread.

        Raises:
            StoreUnavailable: It was not free within `timeout` seconds.
        """
        place = self.enter_thread(timeout, holder)
        try:
            yield
        finally:
            self.leave(place)

    def enter_thread(self, timeout: float, holder: object = "the store") -> Place:
        """Wait for the gate in a thread; leave the place that is returned.

        Raises:
            StoreUnavailable: It was not free within `timeout` seconds.
        """
        place = self._enter(None, holder)
        if not place.taken:
            try:
                self._wait(place, timeout)
            except BaseException:
                self.leave(place)
                raise
        return place

    def _wait(self, place: Place, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._changed:
            while not self._take(place):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise StoreUnavailable(self.explain(timeout))
                self._pass_the_slow(place)
                if self._turn is not place:  # it is, when this has just passed another
                    self._changed.wait(min(left, SLOW))

    def _pass_the_slow(self, place: Place) -> None:
        """Go before a coroutine that does not take its offer, if this is the first thread behind it."""
        first = next(each for each in self._line if each.in_thread)
        if first is place and self._turn is not None and self._turn.is_slow:
            self._line.remove(place)
            self._line.appendleft(self._turn)
            self._turn = place

    # -- coroutines -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def hold_async(self, patience: float = 30.0, holder: object = "") -> AsyncGenerator[None]:
        """Hold the gate from a coroutine; cancelling the wait gives the place up.

        Raises:
            StoreUnavailable: It was not free within `patience` seconds.
        """
        place = await self.enter(patience, holder)
        try:
            yield
        finally:
            self.leave(place)

    async def enter(self, patience: float, holder: object = "") -> Place:
        """Wait for the gate in a coroutine; leave the place that is returned, in any thread.

        Raises:
            StoreUnavailable: It was not free within `patience` seconds.
        """
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()

        def take() -> None:
            # A turn that was cancelled meanwhile takes nothing: its coroutine is about to leave.
            if not turn.done() and self.take(place):
                turn.set_result(True)

        def give_up() -> None:
            if not turn.done():
                turn.set_result(False)

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(take)
            except RuntimeError:  # the loop is closed: nobody is there to write
                self.leave(place)

        place = self._enter(wake, holder)
        if place.taken:
            return place
        timer = loop.call_later(patience, give_up)
        taken = False
        try:
            taken = await turn
        finally:
            timer.cancel()
            if not taken:
                self.leave(place)
        if not taken:
            raise StoreUnavailable(self.explain(patience))
        return place

    # -- the line ---------------------------------------------------------------------------------------

    def explain(self, timeout: float) -> str:
        """Say in an error who holds the gate."""
        holder = str(self._turn.holder) if self._turn is not None else ""
        return (
            f"{self.name} was being written by this process for {timeout:g} s"
            + (f", by {holder}" if holder else "")
            + ": SQLite has one writer at a time. Commit that transaction earlier, or leave its "
            "`async with` block"
        )

    def take(self, place: Place) -> bool:
        """Take an offer; False when it has gone to another meanwhile."""
        with self._changed:
            return self._take(place)

    def leave(self, place: Place) -> None:
        """Give a place up; if it had the turn, offer that to the next."""
        with self._changed:
            if self._turn is place:
                self._turn = self._line.popleft() if self._line else None
            elif place in self._line:
                self._line.remove(place)
                return
            else:
                return
            following = self._turn
            if following is not None:
                following.offered = time.monotonic()
                self._changed.notify_all()
        if following is not None:
            following.wake()

    def _enter(self, wake: Callable[[], None] | None, holder: object) -> Place:
        place = Place(self, wake, holder)
        with self._changed:
            if self._turn is None:
                self._turn = place
                place.taken = True
            else:
                self._line.append(place)
        return place

    def _take(self, place: Place) -> bool:
        if self._turn is place:
            place.taken = True
        return place.taken


_gates: WeakValueDictionary[str, WriteGate] = WeakValueDictionary()
_gates_lock = threading.Lock()


def write_gate(path: Path) -> WriteGate:
    """Return the gate of this file; every part of the process gets the same one."""
    name = os.path.realpath(path)
    with _gates_lock:
        gate = _gates.get(name)
        if gate is None:
            gate = _gates[name] = WriteGate(name)
        return gate


def _forget() -> None:
    # A forked child has none of the threads that held or awaited a gate, nor whoever held the lock.
    global _gates, _gates_lock  # noqa: PLW0603 - replaced, for what they guarded is the parent's
    _gates = WeakValueDictionary()
    _gates_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)
