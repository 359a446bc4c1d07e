"""An app whose bodies wait for a gate by the thousand: one of each process and gate looks for all."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from everloop import App, TaskFunction
from tests.crash.programs.ledger import note

#: Seconds: the lease of the workers, which a test may choose.
LEASE = "WAITING_LEASE_S"

_gates: dict[str, asyncio.Event] = {}
_looking: set[asyncio.Task[None]] = set()


async def wait(n: int, gate: str) -> int:
    note("begin", n)
    if gate not in _gates:
        _gates[gate] = asyncio.Event()
        _looking.add(asyncio.create_task(_look(Path(gate), _gates[gate])))
    await _gates[gate].wait()
    note("did", n)
    return n


async def _look(gate: Path, opened: asyncio.Event) -> None:
    while not gate.exists():
        await asyncio.sleep(0.02)
    opened.set()


class Waiting:
    """The app and its function, on one store."""

    def __init__(self, store: str | None = None, lease: float | None = None) -> None:
        lease = lease or float(os.environ.get(LEASE, "10"))
        self.app = App("waiting", store, lease=lease, embed=False)
        self.wait: TaskFunction[[int, str], int] = self.app.task(wait)


app = Waiting().app
