"""What signals do to a worker, and what else ends one."""

from __future__ import annotations

import asyncio
import os
import signal

from everloop.cli import exits
from everloop.cli.terminal import say
from everloop.cli.times import span
from everloop.engine.worker import Worker


class Stopping:
    """The first signal drains, the second releases at once, the third kills.

    Python's own signal handlers are used, not the loop's: the third must work while a body blocks it.
    A supervisor says how far it is (`reach`) instead of sending signals: a signal that all processes of a
    service get would count twice otherwise.
    """

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self.worker: Worker | None = None
        self.first = asyncio.Event()
        self.code = exits.OK
        self._level = 0

    def listen(self) -> None:
        """Take over SIGINT and SIGTERM."""
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._came)

    def _came(self, number: int, _frame: object) -> None:
        self.reach(self._level + 1, signal.Signals(number))

    def reach(self, level: int, number: signal.Signals) -> None:
        """Go on to the first, the second, or the third stage of the end; never back."""
        if level <= self._level:
            return
        self._level = level
        name = number.name
        if level == 1:
            self.code = exits.OK
            self._announce(
                f"{name}: no more calls are taken", self._calls(f"may finish within {span(self.grace)}")
            )
            self._loop.call_soon_threadsafe(self._drain)
        elif level == 2:
            self.code = 128 + number
            self._announce(f"{name} again", self._calls("{are} released for other workers now"))
            self._loop.call_soon_threadsafe(self._hurry)
        else:
            self._announce(f"{name} for the third time", "killed")
            os._exit(128 + number)

    def recycle(self, why: str) -> None:
        """Drain, and end with the exit code that asks for a successor."""
        if not self.first.is_set():
            self.code = exits.RECYCLED
            fate = self._calls(f"may finish within {span(self.grace)}")
            self._announce(f"{why}: another takes its place", fate)
            self._drain()

    def _drain(self) -> None:
        self._loop.call_later(self.grace, self._grace_is_over)
        self.first.set()

    def _grace_is_over(self) -> None:
        if self.worker is not None and self.worker.slots.running:
            self._announce("the grace period is over", self._calls("{are} released for other workers"))

    def _hurry(self) -> None:
        self.first.set()
        if self.worker is not None:
            self.worker.hurry()

    def _calls(self, fate: str) -> str:
        running = self.worker.slots.running if self.worker is not None else 0
        return _told(running, fate) if running else "no call is running"

    def _announce(self, what: str, then: str) -> None:
        # Not through sys.stderr: a signal may come while that is printing.
        os.write(2, f"everloop: {what}: {then}\n".encode())

    def say_end(self) -> bool:
        """Announce the end; tell whether everything has stopped."""
        left = len(self.worker.holding) if self.worker is not None else 0
        say(
            f"everloop: stopped; {_told(left, 'did not stop and {are} left behind')}"
            if left
            else "everloop: stopped"
        )
        return not left


def _told(count: int, fate: str) -> str:
    one = count == 1
    return f"{count} running call{'' if one else 's'} {fate.format(are='is' if one else 'are')}"
