"""An app with bodies that wait for a gate, and one that asks to be run again as often as it is told to."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from everloop import App, RetryAfter, TaskFunction
from tests.crash.programs.ledger import LEASE_S, hold, note


async def snooze(n: int, nap: str, gate: str) -> int:
    """Snooze when there is a file `nap` of this process, until the gate is open."""
    note("begin", n)
    while not Path(gate).exists():
        if Path(f"{nap}-{n}-{os.getpid()}").exists():
            Path(f"{nap}-{n}-{os.getpid()}").unlink()
            note("snoozed", n)
            raise RetryAfter(0.01)
        await asyncio.sleep(0.005)
    note("did", n)
    return n


class Snoozing:
    """The app and its functions, on one store."""

    def __init__(self, store: str | None = None) -> None:
        self.app = app = App("snoozing", store, lease=LEASE_S, embed=False)
        self.hold: TaskFunction[[int, str], int] = app.task(hold)
        self.snooze: TaskFunction[[int, str, str], int] = app.task(snooze)


app = Snoozing().app
