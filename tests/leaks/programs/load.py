"""Calls of all kinds, wave after wave; as a program, a client that tells what it and its worker hold.

    python -m tests.leaks.programs.load CALLS POINTS

prints one line of JSON at each point: the number of calls so far, and the census of both processes.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
import time
from typing import Any

import everloop
from everloop import App, Key, _app
from everloop.store.sql.verbs import keeping
from tests.helpers.census import held, registries

# A store of one size, whatever the speed: some calls, and those of some seconds. As it is, finished calls are
# kept for a minute at least and looked through each five, and SQLite's page cache grows with them, up to its
# bound.
_app.EVERY, keeping.RECENT = 5.0, 5_000_000

app = App("load", keep=everloop.Keep(count=20_000), embed=False, process_pool=2)
#: What is kept for ever on purpose, to see that it is noticed: `LOAD_LEAK` says how many of 1,000 calls do.
_kept: list[object] = []
LEAK = int(os.environ.get("LOAD_LEAK", "0"))
#: Calls in a wave, its children and second runs not counted.
WAVE = int(os.environ.get("LOAD_WAVE", "2000"))


@app.task
async def plain(n: int) -> int:
    if n % 1000 < LEAK:
        _kept.append(bytearray(1024))
    return n


@app.task
async def parent(n: int) -> int:
    return sum(await asyncio.gather(plain(n), plain(n)))


@app.task(retries=everloop.Retry(1, delay=0.01))
async def flaky(n: int) -> int:
    if everloop.current().attempt == 1:
        raise ValueError(n)
    return n


@app.task
async def failing(n: int) -> int:
    raise LookupError(n)


@app.task
async def talkative(n: int) -> int:
    print(f"call {n} says so")
    everloop.current().progress(1, 2, "half")
    return n


@app.task
def in_thread(n: int) -> int:
    return n


@app.task
def blocking(n: int) -> int:
    time.sleep(0.2)
    return n


@app.task(timeout=30)
async def asleep(n: int) -> int:
    await asyncio.sleep(3600)
    return n


@app.task(run="process")
def in_process(n: int) -> int:
    return n


@app.task
async def after(n: int, task: everloop.Task[Any]) -> None:
    """Be a durable callback."""
    await task


@app.task
async def look() -> dict[str, dict[str, int]]:
    """What the worker holds."""
    return {"held": held(), "registries": registries()}


async def _cancelled(n: int) -> None:
    """Cancel a call that runs, or waits."""
    task = await app.submit(asleep(n))
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def _failed(n: int) -> None:
    try:
        await failing(n)
    except LookupError:
        return
    raise AssertionError("it did not fail")


async def _seen(n: int) -> None:
    """Look at a call from elsewhere, by its id."""
    task = await app.submit(plain(n), delay=0.01, tags=["seen"])
    again = await app.get_task(task.id, plain)
    assert await again == n
    del task
    await app.counts()


async def _left(n: int) -> None:
    """Submit with a durable callback, and forget."""
    await app.submit(plain(n), on_done=functools.partial(after, n))


async def _in_transactions(numbers: range) -> None:
    """Submit in transactions of the user's, one of which is rolled back."""
    for n in numbers:
        try:
            async with app.database().transaction() as connection:
                task = await app.submit(plain(n), connection=connection)
                if n == numbers[0]:
                    raise InterruptedError(n)
        except InterruptedError:
            continue
        assert await task == n


async def wave(first: int) -> int:
    """Make calls of many kinds at once; return how many there were, second runs not counted."""
    numbers = range(first, first + WAVE)
    some = numbers[:10]
    keyed = [app.submit(plain(n), key=Key(f"key {n // 2}")) for n in some]
    await asyncio.gather(
        *(plain(n) for n in numbers),
        *(parent(n) for n in some),
        *(flaky(n) for n in some),
        *(talkative(n) for n in some),
        *(in_thread(n) for n in some),
        *(_cancelled(n) for n in some),
        *(_failed(n) for n in some),
        *(_seen(n) for n in some),
        *(_left(n) for n in some),
        *(in_process(n) for n in some[:4]),
        _in_transactions(some),
    )
    await asyncio.gather(*[await one for one in keyed])
    tasks = await app.submit_many(plain(n) for n in numbers[:50])
    async for task in app.as_completed(plain(n) for n in numbers[:50]):
        task.result()
    for task in tasks:
        await task
    return WAVE + 10 * (3 + 1 + 1 + 1 + 1 + 1 + 1 + 2) + 4 + 9 + 5 + 100


async def main(calls: int, points: int) -> None:
    """Make so many calls, and look so many times."""
    started, done = time.monotonic(), 0
    async with app:
        # As many threads and processes as there will be.
        await asyncio.gather(*map(blocking, range(40)), *map(in_process, range(8)))
        for point in range(1, points + 1):
            while done < calls * point / points:
                done += await wave(done)
            await _quiet()
            worker = await look()
            mine = {"held": held(), "registries": registries()}
            seconds = round(time.monotonic() - started, 1)
            stored = sum((await app.counts()).values())
            told = {"calls": done, "seconds": seconds, "stored": stored, "worker": worker, "client": mine}
            print(json.dumps(told), flush=True)


async def _quiet() -> None:
    """Wait until every call has ended, those that nobody awaits, too."""
    while True:
        counts = await app.counts()
        if not any(counts[state] for state in ("waiting", "scheduled", "ready", "leased")):
            return
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
