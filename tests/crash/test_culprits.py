"""Whoever takes its process down is the only one that fails, and whoever blocks its loop runs once."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from everloop import TaskCrashed
from tests.crash.blocking import TARGET, blocked, program
from tests.crash.scene import Scene

RUNNING = 2_000


@pytest.fixture
def scene(tmp_path: Path) -> Any:
    with ExitStack() as stack:
        yield Scene(tmp_path, stack)


@pytest.mark.timeout(120)
async def test_one_call_that_ends_its_process_among_thousands_is_the_only_one_that_fails(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    culprits = program(scene, monkeypatch)
    app, gate = culprits.app, str(scene.gate)
    async with app:
        held = await app.submit_many([culprits.hold(gate) for _ in range(RUNNING)])
        worker = scene.worker(concurrency=RUNNING + 1, target=TARGET)
        await scene.noted("holds", RUNNING)
        assert (await app.counts())["leased"] == RUNNING
        culprit = await app.submit(culprits.die(gate), priority=1)
        assert worker.ended().code == 9
        scene.gate.touch()
        for _ in range(3):
            assert scene.worker(concurrency=RUNNING + 1, target=TARGET).ended().code == 9
        scene.worker(concurrency=RUNNING + 1, target=TARGET)

        with pytest.raises(TaskCrashed, match="its worker died with it 4 times"):
            await culprit
        values = await asyncio.gather(*held)
        stored = await app.tasks(name="hold", limit=RUNNING + 1)
        assert Counter((task.state, task.attempts) for task in stored) == {("succeeded", 1): RUNNING}
    assert len(values) == RUNNING
    assert len(scene.lines("dies")) == 4


async def test_a_call_that_blocks_its_loop_for_ten_leases_runs_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await blocked(scene, program(scene, monkeypatch))
