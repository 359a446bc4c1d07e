"""The client process: does what it reads, a line each, and prints the answer as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.strangers import stranger
from bench.tasks import app, nap, node, noop
from everloop._runner import fastest_loop

Answer = dict[str, Any]
#: Pauses before a sample of the latency, in seconds: long enough for everybody to fall asleep.
PAUSES = 0.05, 0.15


class Clock:
    """Wall and processor time of this process since its birth."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Answer:
        return {"seconds": time.perf_counter() - self._wall, "cpu": time.process_time() - self._cpu}


async def gather(count: int) -> Answer:
    """Call at once, and wait for all results."""
    clock = Clock()
    results = await asyncio.gather(*[noop(n) for n in range(count)])
    answer = clock.read()
    assert results == list(range(count))  # typed, and in order
    return answer


async def batches(count: int, size: int) -> Answer:
    """Call `size` at once and wait for all results, again and again; how long each took."""
    return {"ms": [(await gather(size))["seconds"] * 1e3 for _ in range(count)]}


async def submit_many(count: int) -> Answer:
    """Submit durably, then wait for all results."""
    clock = Clock()
    tasks = await app.submit_many(noop(n) for n in range(count))
    submitted = clock.read()["seconds"]
    for task in tasks:
        await task
    return {"submitted": submitted} | clock.read()


async def fill(count: int) -> Answer:
    """Submit for whoever comes, keeping no task."""
    clock = Clock()
    for start in range(0, count, 20_000):
        await app.submit_many(noop(n) for n in range(start, min(count, start + 20_000)))
    return clock.read()


async def fill_strangers(count: int) -> Answer:
    """The same with a function that no worker knows."""
    clock = Clock()
    for start in range(0, count, 20_000):
        await app.submit_many(stranger(n) for n in range(start, min(count, start + 20_000)))
    return clock.read()


async def fill_later(count: int, delay: float) -> Answer:
    """The same with calls that are due after `delay` seconds."""
    clock = Clock()
    for start in range(0, count, 20_000):
        calls = (noop(n) for n in range(start, min(count, start + 20_000)))
        await app.submit_many(calls, delay=delay)
    return clock.read()


async def one_at_a_time(count: int, seed: int) -> Answer:
    """Call once, again and again, each time after a rest."""
    rest = random.Random(seed)
    await noop(0)
    samples: list[float] = []
    for n in range(count):
        await asyncio.sleep(rest.uniform(*PAUSES))
        started = time.perf_counter()
        await noop(n)
        samples.append((time.perf_counter() - started) * 1e3)
    return {"ms": samples}


async def sleep_at_once(seconds: list[float]) -> Answer:
    """Sleep so long, all at once."""
    clock = Clock()
    await asyncio.gather(*[nap(s) for s in seconds])
    return clock.read()


async def cancel_tree(size: int, children: int) -> Answer:
    """Start a tree of calls, and cancel it from its root once all of them run; until the caller knows."""
    root = app.create_task(node(0, size, children))
    before = await app.counts()
    while (counts := await app.counts())["leased"] != size:  # noqa: ASYNC110 - they are in other processes
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)  # the last bodies begin
    clock = Clock()
    root.cancel()
    await asyncio.wait([root])
    answer = clock.read()
    assert root.cancelled()
    ended = (await app.counts())["cancelled"] - before["cancelled"]
    assert ended == size, f"{ended} of {size} calls had ended when their root had: {counts}"
    return answer


REQUESTS: dict[str, Callable[..., Awaitable[Answer]]] = {
    each.__name__: each
    for each in (
        batches,
        cancel_tree,
        fill,
        fill_later,
        fill_strangers,
        gather,
        one_at_a_time,
        sleep_at_once,
        submit_many,
    )
}


async def main(embedded: int) -> None:
    """Serve requests until the end of the input."""
    loop = asyncio.get_running_loop()
    async with app.worker(concurrency=embedded) if embedded else app:
        print("ready", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            request, arguments = json.loads(line)
            print(json.dumps(await REQUESTS[request](**arguments)), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        runner.run(main(int(sys.argv[1])))
    os._exit(0)  # a thread may still stand in readline
