"""Calls that note in the ledger what they do, and clients that add them, while somebody kills both.

As a program it is a client: it adds calls and awaits them until a file `enough` is there.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import everloop
from everloop import App, Task
from tests.crash.programs.ledger import LEASE_S, note

#: Seconds: the lease, which a hunt may choose.
LEASE = "HUNTED_LEASE_S"
lease = float(os.environ.get(LEASE, LEASE_S))
app = App("hunted", lease=lease, embed=False)

#: Seconds that a body takes at most.
LONGEST_S = 0.15
#: So many calls a client adds at once; of these, so many are trees, each with so many leaves.
BATCH, TREES, LEAVES = 12, 2, 3
#: So many a client awaits at most: those of the dead are missed after a lease only.
WINDOW = 120


# Nobody is to be failed for being struck by chance again and again.
@app.task(crashes=1_000)
async def work() -> str:
    return await _run(random.random() * LONGEST_S)


@app.task(crashes=1_000)
async def leaf(number: int) -> str:
    return await _run(random.random() * LONGEST_S)


@app.task(crashes=1_000)
async def tree() -> str:
    """Await leaves at once; those that a run has seen ending are used again by the next one."""
    id_ = everloop.current().id
    note("begin", id_)
    await asyncio.gather(*(leaf(number) for number in range(LEAVES)))
    note("did", id_)
    return id_


async def _run(seconds: float) -> str:
    id_ = everloop.current().id
    note("begin", id_)
    await asyncio.sleep(seconds)
    note("did", id_)
    return id_


def _watch_the_processor() -> None:
    """Note when this process was not given the processor for so long that others may take it for dead."""
    before = time.monotonic()
    while True:
        time.sleep(0.1)
        now = time.monotonic()
        if now - before > lease / 3:
            note("starved", f"{now - before:.1f}")
        before = now


def _begin() -> None:
    threading.Thread(target=_watch_the_processor, name="processor", daemon=True).start()


os.register_at_fork(after_in_child=_begin)


def main(arguments: Sequence[str]) -> int:
    """Be a client."""
    asyncio.run(_submit(Path(arguments[0])))
    return 0


async def _submit(enough: Path) -> None:
    """Note of which calls the store has said that it has them, and whose results have come."""
    async with app, asyncio.TaskGroup() as group:
        await app.counts()
        print("client ready", flush=True)
        room = asyncio.Semaphore(WINDOW)

        async def told(task: Task[str]) -> None:
            note("got", await task)
            room.release()

        while not enough.exists():
            trees = [tree() for _ in range(TREES)]
            tasks = await app.submit_many([*trees, *(work() for _ in range(BATCH - TREES))])
            for task in tasks:
                note("added", task.id)
                await room.acquire()
                group.create_task(told(task))
            await asyncio.sleep(random.random() * LONGEST_S)
