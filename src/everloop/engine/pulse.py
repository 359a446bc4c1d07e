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
        self._timer = self._loop.call_later(within, self._look)
        self._at = time.monotonic()
        self._held_up = False  # the loop was, as the last look found: the next one decides
        attempt.on_beat = self._beat

    def _beat(self) -> None:
        self._at = time.monotonic()  # also from a thread: it only reads a clock

    def _look(self) -> None:
        if self._attempt.suspended:
            self._at = time.monotonic()
        left = self._at + self._within - time.monotonic()
        late = self._loop.time() - self._timer.when()
        if left > 0:
            self._held_up = False
            self._timer = self._loop.call_later(left, self._look)
        elif not self._held_up:
            self._held_up = True
            self._timer = self._loop.call_later(late, self._look)
        else:
            text = f"it has given no sign of life for {self._within:g} s (`heartbeat`)"
            self._attempt.stop("timeout", text)

    def cancel(self) -> None:
        """Watch no more."""
        self._attempt.on_beat = None
        self._timer.cancel()
