"""The clock of a database server, told here without asking each time."""

from __future__ import annotations

import time
from collections.abc import Callable

from everloop._core.clock import SystemClock


class ServerClock:
    """Tells the server's time by this machine's monotonic clock, from the last time the server was asked.

    Processes on machines whose own clocks differ agree to within half a round trip. The server is asked again
    whenever a connection is made, and once a second by the keeper: one whose clock is set is followed.
    """

    def __init__(self) -> None:
        self._ahead = SystemClock().now() - _monotonic()

    def now(self) -> int:
        """Return the server's instant in microseconds."""
        return _monotonic() + self._ahead

    def set(self, ask: Callable[[], int]) -> None:
        """Ask the server. An answer that contradicts what is known is taken to have been given half-way."""
        before = _monotonic()
        answer = ask()
        after = _monotonic()
        if not before <= answer - self._ahead <= after:
            self._ahead = answer - (before + after) // 2


def _monotonic() -> int:
    return time.monotonic_ns() // 1_000
