"""What the event loop alone can do, in the bench's own process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from everloop._runner import fastest_loop


def loop_rate(count: int) -> float:
    """Return the no-ops per second of `create_task` and `gather` on Everloop's loop: the best of three."""
    return count / min(_run(_gather(count)) for _ in range(3))


def sleep_seconds(seconds: Sequence[float]) -> float:
    """Return how long it takes to sleep so long, all at once."""
    return _run(_sleep(seconds))


def _run(main: Coroutine[Any, Any, float]) -> float:
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        return runner.run(main)


async def _nothing() -> None:
    return


async def _gather(count: int) -> float:
    started = time.perf_counter()
    await asyncio.gather(*[asyncio.create_task(_nothing()) for _ in range(count)])
    return time.perf_counter() - started


async def _sleep(seconds: Sequence[float]) -> float:
    started = time.perf_counter()
    await asyncio.gather(*[asyncio.create_task(asyncio.sleep(s)) for s in seconds])
    return time.perf_counter() - started
