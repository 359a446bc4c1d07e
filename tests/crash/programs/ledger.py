"""An app whose bodies write what they do into a ledger: a file beside the store, not through Everloop."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import everloop
from everloop import App, TaskFunction

#: Short, so that a dead worker's calls are taken over soon; long enough for a busy machine.
LEASE_S = 3.0


def note(*words: object) -> None:
    """Append one line with this process's id; the operating system keeps the lines of processes apart."""
    line = " ".join(map(str, (*words, os.getpid()))) + "\n"
    descriptor = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


async def opened(gate: str) -> None:
    """Wait until a file is there."""
    while not Path(gate).exists():
        await asyncio.sleep(0.005)


async def work(n: int) -> int:
    note("begin", n)
    await asyncio.sleep(0.02)
    note("did", n)
    return n


async def hold(n: int, gate: str) -> int:
    note("begin", n)
    try:
        await opened(gate)
    except asyncio.CancelledError:
        note("cancelled", n)
        raise
    note("did", n)
    return n


async def stay(n: int, gate: str) -> int:
    """Hold the process's loop, deaf to everything, until the gate is open."""
    note("begin", n)
    while not Path(gate).exists():
        time.sleep(0.005)
    note("did", n)
    return n


async def die(n: int) -> int:
    note("begin", n)
    os._exit(9)


class Ledger:
    """The app and its functions, on one store."""

    def __init__(self, store: str | None = None) -> None:
        self.app = app = App("ledger", store, lease=LEASE_S, embed=False)
        self.work: TaskFunction[[int], int] = app.task(work)
        self.hold: TaskFunction[[int, str], int] = app.task(hold)
        self.stay: TaskFunction[[int, str], int] = app.task(stay)
        self.die: TaskFunction[[int], int] = app.task(crashes=4)(die)

        @app.task
        async def tree(leaves: int, gate: str) -> int:
            """Await `leaves` children at once; every second one waits for the gate."""
            note("begin-tree", everloop.current().id)
            calls = (self.hold(n, gate if n % 2 else "/") for n in range(leaves))
            total = sum(await asyncio.gather(*calls))
            note("did-tree", everloop.current().id)
            return total

        self.tree = tree


app = Ledger().app
