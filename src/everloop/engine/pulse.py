"""The heartbeat timeout: a body has to give a sign of life now and then, or it is stopped."""

from __future__ import annotations

import asyncio
import time

from everloop.engine.attempt import Attempt


class Pulse:
    """Watches one attempt; a timer that is moved on as long as there are signs of life.

    While the attempt waits for a child of its own it gives none, and need not; the child's end is one. Nor
    can it give any while the loop is held up by something else: for so long it is waited once more.

    Args:
        attempt: What is watched.
        within: Seconds within which each sign has to follow the one before.
    """

    def __init__(self, attempt: Attempt, within: float) -> None:
        self._attempt = attempt
        self._within = within
        self._loop = asyncio.get_running_loop()
        self._at = time.monotonic()
        self._held_up = False  # the loop was, as the last look found: the next one decides
        self._look_in(within)
        attempt.on_beat = self._beat

    def _beat(self) -> None:
        self._at, self._held_up = time.monotonic(), False  # also from a thread: it only reads a clock

    def _look_in(self, delay: float) -> None:
        self._look_at = time.monotonic() + delay  # no handle of uvloop's that is due at once tells it
        self._timer = self._loop.call_later(delay, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        if self._attempt.suspended:
            self._at = now
        left = self._at + self._within - now
        if left > 0:
            self._look_in(left)
        elif not self._held_up:
            self._held_up = True
            self._look_in(min(max(now - self._look_at, 0), self._within))
        else:
            text = f"it has given no sign of life for {self._within:g} s (`heartbeat`)"
            self._attempt.stop("timeout", text)

    def cancel(self) -> None:
        """Watch no more."""
        self._attempt.on_beat = None
        self._timer.cancel()
