"""An app with calls that wait for a gate, one that takes its process down, and one that blocks the loop."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from everloop import App

LEASE = 0.5
app = App("culprits", os.environ.get("EVERLOOP_STORE", "memory://"), lease=LEASE)
_opened: list[asyncio.Event] = []


async def _opener(gate: Path, opened: asyncio.Event) -> None:
    while not gate.exists():
        await asyncio.sleep(0.02)
    opened.set()


_helpers: set[asyncio.Task[None]] = set()


@app.task
async def hold(gate: str) -> int:
    """Wait for the gate; one of them looks for all."""
    note("holds")
    if not _opened:
        _opened.append(asyncio.Event())
        _helpers.add(asyncio.create_task(_opener(Path(gate), _opened[0])))
    await _opened[0].wait()
    return os.getpid()


@app.task(crashes=3)
async def die(gate: str) -> None:
    """Take the process down, once all the others run."""
    note("dies")
    os._exit(9)


@app.task
async def block(seconds: float) -> int:
    """Block the loop."""
    note("begins")
    time.sleep(seconds)
    note("ends")
    return os.getpid()


@app.task
async def quick() -> int:
    return os.getpid()


def note(word: str) -> None:
    with Path(os.environ["LEDGER"]).open("a", encoding="utf-8") as file:
        file.write(f"{word} x {os.getpid()}\n")
