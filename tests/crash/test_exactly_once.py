"""A task's transaction on the store's own database commits its effect and its outcome together."""

from __future__ import annotations

import asyncio
import random
from contextlib import ExitStack
from pathlib import Path

from tests.crash.programs.exactly_once import Effects
from tests.crash.scene import LIMIT_S, Scene

CALLS, KILLS = 250, 5
TARGET = "tests.crash.programs.exactly_once:app"


async def test_at_any_moment_the_rows_are_those_of_the_calls_that_succeeded(
    tmp_path: Path, rng: random.Random
) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack)
        effects = Effects(scene.store)
        async with effects.app as app:
            effects.create_table()
            tasks = await app.submit_many(effects.effect(n) for n in range(CALLS))
            for point in sorted(rng.sample(range(1, CALLS - 50), KILLS)):
                worker = scene.worker(target=TARGET)
                async with asyncio.timeout(LIMIT_S):
                    while len(_agreed(effects)) < point:
                        await asyncio.sleep(rng.random() / 100)
                worker.kill()
                _agreed(effects)
            scene.worker(target=TARGET)
            async with asyncio.timeout(LIMIT_S):
                assert await asyncio.gather(*tasks) == list(range(CALLS))

            assert _agreed(effects) == list(range(CALLS))
            for n, task in enumerate(tasks):
                await task.refresh()
                assert task.attempts == (2 if n % 5 == 0 else 1)


def _agreed(effects: Effects) -> list[int]:
    rows, succeeded = effects.look()
    assert rows == succeeded
    return rows
