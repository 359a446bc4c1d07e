"""The app that the tests of the commands use."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import time
from datetime import datetime
from pathlib import Path

from everloop import App, Retry, current

app = App("shop", lease=float(os.environ.get("SHOP_LEASE", "2")))
log = logging.getLogger("shop")


@app.task
async def add(x: int, y: int = 1) -> int:
    return x + y


@app.task
async def later(at: datetime, days: int = 1) -> datetime:
    return at.replace(year=at.year + days)


@app.task(retries=Retry(1, delay=0.01))
async def fail(text: str) -> None:
    raise ValueError(text)


@app.task(queue="mail")
async def send(to: str, *, subject: str = "") -> str:
    return f"{subject} to {to}"


@app.task
async def tell(what: str) -> None:
    print("printed", what)
    log.info("informed of %s", what)
    log.warning("warned\nof it")


@app.task
async def hold(gate: str) -> str:
    """Note the start, and run until the gate opens."""
    current().progress(1, 2, "holding \x1b[7mon")
    Path(gate).with_suffix(".begun").touch()
    while not Path(gate).exists():
        await asyncio.sleep(0.01)
    return "let go"


@app.task
def sit(gate: str) -> None:
    """Hold in a thread, where nothing can stop it."""
    Path(gate).with_suffix(".begun").touch()
    while not Path(gate).exists():
        time.sleep(0.01)


@app.task
async def block(gate: str) -> int:
    """Block the loop until the gate opens."""
    Path(gate).with_suffix(".begun").touch()
    while not Path(gate).exists():
        time.sleep(0.01)
    return os.getpid()


@app.task(crashes=0)
async def shatter() -> None:
    """End the process in native code."""
    ctypes.string_at(0)


@app.task
async def who() -> int:
    """Tell in which process this runs."""
    return os.getpid()


@app.task
async def grow(megabytes: int) -> int:
    """Hold more memory from now on."""
    held.append(b"x" * (megabytes * 1_000_000))
    return os.getpid()


held: list[bytes] = []
