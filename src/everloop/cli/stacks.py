"""Where the bodies of a worker are: said when somebody asks (SIGUSR1), and when none of them goes on."""

from __future__ import annotations

import os
import signal

from everloop.cli.terminal import clean
from everloop.engine.vitals import Vitals
from everloop.engine.whereabouts import whereabouts


class Stacks:
    """Tells of one worker.

    Args:
        vitals: Knows the worker, and whether it is stuck.
    """

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._told = False

    def listen(self) -> None:
        """Answer SIGUSR1, unless the app has a handler of its own."""
        if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
            # Python's own handler: it answers while a body blocks the loop, too.
            signal.signal(signal.SIGUSR1, lambda *_: self.say())

    def look(self) -> None:
        """Say it once when every slot is taken and nothing ends, and again the next time that it is so."""
        if self._vitals.is_stuck and not self._told:
            self.say(f"{self._vitals.why_not()}; ")
        self._told = self._vitals.is_stuck

    def say(self, why: str = "") -> None:
        """Say which calls run, and where each is."""
        lines = whereabouts(self._vitals.worker)
        head = f"everloop: {why}pid {os.getpid()} holds {'these calls:' if lines else 'no call'}"
        text = "\n".join([head, *(f"    {clean(line)}" for line in lines)])
        # Not through sys.stderr: a signal may come while that is printing.
        os.write(2, f"{text}\n".encode(errors="replace"))
