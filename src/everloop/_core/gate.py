"""The write gate: one fair line, per file and process, for all who write an SQLite file.

SQLite lets one writer in at a time and does not queue the others, so a busy engine would starve the
user's transactions, or they it. Threads and coroutines stand in the same line here; between processes
the file's own lock decides.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from everloop._core.errors import StoreUnavailable


class _Place:
    """A place in the line; `grant` is called once, when it is first."""

    __slots__ = ("grant", "granted")

    def __init__(self, grant: Callable[[], None]) -> None:
        self.grant = grant
        self.granted = False


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
        self._lock = threading.Lock()
        self._line: deque[_Place] = deque()
        # Invariant: the gate is held exactly while the first place in the line is granted.

    @contextmanager
    def hold(self, timeout: float) -> Generator[None]:
        """Hold the gate from a thread.

        Raises:
            StoreUnavailable: It was not free within `timeout` seconds.
        """
        turn = threading.Event()
        place = self._enter(turn.set)
        try:
            if not turn.wait(timeout):
                raise StoreUnavailable(
                    f"{self.name} was being written by this process for {timeout:g} s: a transaction of "
                    "yours is "
                    "open on it; commit it, or leave its `async with` block"
                )
            yield
        finally:
            self._leave(place)

    @asynccontextmanager
    async def hold_async(self) -> AsyncGenerator[None]:
        """Hold the gate from a coroutine; cancelling the wait gives the place up."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()

        def first() -> None:
            if not turn.done():
                turn.set_result(None)

        def grant() -> None:
            try:
                loop.call_soon_threadsafe(first)
            except RuntimeError:  # the loop is closed: nobody is there to write
                self._leave(place)

        place = self._enter(lambda: None)
        place.grant = grant
        if self._is_first(place):
            grant()
        try:
            await turn
            yield
        finally:
            self._leave(place)

    def _enter(self, grant: Callable[[], None]) -> _Place:
        place = _Place(grant)
        with self._lock:
            self._line.append(place)
            first = self._line[0] is place
            place.granted = first
        if first:
            place.grant()
        return place

    def _is_first(self, place: _Place) -> bool:
        with self._lock:
            return place.granted

    def _leave(self, place: _Place) -> None:
        with self._lock:
            if place not in self._line:
                return
            was_first = self._line[0] is place
            self._line.remove(place)
            following = self._line[0] if was_first and self._line else None
            if following is not None:
                following.granted = True
        if following is not None:
            following.grant()


_gates: WeakValueDictionary[str, WriteGate] = WeakValueDictionary()


def write_gate(path: Path) -> WriteGate:
    """Return the gate of this file; every part of the process gets the same one."""
    name = os.path.realpath(path)
    gate = _gates.get(name)
    if gate is None:
        gate = _gates.setdefault(name, WriteGate(name))
    return gate


# A forked child has none of the threads that held or awaited a gate.
os.register_at_fork(after_in_child=_gates.clear)
