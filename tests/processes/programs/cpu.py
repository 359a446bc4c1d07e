"""An app whose functions run in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import everloop
from everloop import App, Key, Retry, RetryAfter, Task

STORE = os.environ.get("EVERLOOP_STORE", "memory://")

app = App("cpu", STORE, process_pool=2, lease=2)


class Late(Exception):
    pass


class VeryLate(Late):
    pass


@dataclass
class Square:
    side: int


@app.task(run="process")
def area(square: Square) -> tuple[int, int]:
    everloop.current().progress(1, 2, "half")
    return square.side**2, os.getpid()


@app.task(run="process")
async def area_soon(square: Square) -> int:
    await asyncio.sleep(0)
    return square.side**2


@app.task
async def whose() -> int:
    return os.getpid()


@app.task(run="process")
def me() -> list[object]:
    current = everloop.current()
    return [current.id, current.name, current.attempt, current.queue, current.stopping]


@app.task(run="process")
def own_loop() -> str:
    async def inside() -> str:
        return "a loop of its own"

    return asyncio.run(inside())


@app.task(run="process", raises=[Late], retries=Retry(3, delay=0.01, never=[Late]))
def late(log: str) -> None:
    note(log, "late")
    raise VeryLate("too late")


@app.task(run="process", retries=Retry(2, delay=0.01))
def again(log: str) -> int:
    note(log, "again")
    attempt = everloop.current().attempt
    if attempt < 3:
        raise ValueError(f"not in attempt {attempt}")
    return attempt


@app.task(run="process")
def put_off(log: str) -> int:
    if not Path(log).exists():
        note(log, "put off")
        raise RetryAfter(0.01)
    return everloop.current().attempt


@app.task(run="process", retries=5)
def odd_value(log: str) -> object:
    note(log, "odd")
    return object()


@app.task(run="process")
def leave(code: int) -> None:
    raise SystemExit(code)


@app.task(run="process", crashes=1)
def die(log: str, how: str) -> None:
    note(log, "dies")
    if how == "exit":
        os._exit(7)
    elif how == "segv":
        ctypes.string_at(0)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(run="process")
def wait(log: str, how: str = "politely") -> str:
    """Wait for good: in a system call, and whatever is said, and where not even a thread can run."""
    note(log, f"begins {os.getpid()}")
    try:
        while True:
            try:
                if how == "deaf":
                    re.match(r"(a+)+$", "a" * 60 + "b")
                time.sleep(600)
            except asyncio.CancelledError:
                if how != "stubborn":
                    raise
    finally:
        note(log, f"stops {everloop.current().stopping}")


@app.task(run="process")
def starts(log: str) -> None:
    """Start a process, and wait for it without an ear for anything else."""
    program = "import os, time; print('begins', os.getpid(), flush=True); time.sleep(600)"
    with Path(log).open("a", encoding="utf-8") as file:
        started = subprocess.Popen([sys.executable, "-c", program], stdout=file)
    with started:
        note(log, f"begins {os.getpid()}")
        while started.poll() is None:
            with contextlib.suppress(asyncio.CancelledError):
                started.wait()


@app.task(run="process", timeout=0.3)
async def wait_on_the_loop(log: str) -> None:
    try:
        await asyncio.sleep(600)
    finally:
        note(log, f"stops {everloop.current().stopping}")


@app.task(run="process", heartbeat=0.5)
def beat(times: int) -> str:
    for _ in range(times):
        time.sleep(0.15)
        everloop.current().heartbeat()
    time.sleep(600)
    return "never"


@app.task(run="process")
def hold(gate: str) -> str:
    while not Path(gate).exists():
        time.sleep(0.005)
    return "let go"


@app.task(run="process")
async def submits(x: int) -> str:
    return (await app.submit(area_soon(Square(x)), key=Key(f"area of {x}"))).id


@app.task(run="process")
async def awaits(x: int) -> int:
    return await area_soon(Square(x))


@app.task(run="process")
def after(log: str, task: Task[int]) -> None:
    note(log, f"after {task.result()}")


def note(log: str, line: str) -> None:
    with Path(log).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def make_local(name: str) -> None:
    """Declare a function where no other process finds it."""

    @app.task(run="process", name=name)
    def local() -> None:
        """Do nothing."""
