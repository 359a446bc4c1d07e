"""Whoever takes its process down is the only one that fails, and whoever blocks its loop runs once."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from everloop import TaskCrashed
from tests.crash.scene import Scene

TARGET = "tests.crash.programs.culprits:app"
RUNNING = 2_000


@pytest.fixture
def scene(tmp_path: Path) -> Any:
    with ExitStack() as stack:
        yield Scene(tmp_path, stack)


def program(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The app of those workers, as a client here."""
    monkeypatch.setenv("EVERLOOP_STORE", scene.store)
    monkeypatch.delitem(sys.modules, "tests.crash.programs.culprits", raising=False)
    return importlib.import_module("tests.crash.programs.culprits")


@pytest.mark.timeout(120)
async def test_one_call_that_ends_its_process_among_thousands_is_the_only_one_that_fails(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    culprits = program(scene, monkeypatch)
    app, gate = culprits.app, str(scene.gate)
    async with app:
        held = await app.submit_many([culprits.hold(gate) for _ in range(RUNNING)])
        worker = scene.worker(concurrency=RUNNING + 1, target=TARGET)
        async with asyncio.timeout(60):
            while (await app.counts())["leased"] < RUNNING:
                await asyncio.sleep(0.05)
        culprit = await app.submit(culprits.die(gate), priority=1)
        assert worker.ended().code == 9
        scene.gate.touch()
        for _ in range(3):
            assert scene.worker(concurrency=RUNNING + 1, target=TARGET).ended().code == 9
        scene.worker(concurrency=RUNNING + 1, target=TARGET)

        with pytest.raises(TaskCrashed, match="its worker died with it 4 times"):
            await culprit
        values = await asyncio.gather(*held)
    assert len(values) == RUNNING
    assert len(scene.lines("dies")) == 4


async def test_a_call_that_blocks_its_loop_for_ten_leases_runs_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    culprits = program(scene, monkeypatch)
    async with culprits.app:
        first = scene.worker(target=TARGET)
        first.until("worker ready")
        task = await culprits.app.submit(culprits.block(10 * culprits.LEASE))
        await scene.noted("begins", 1)
        second = scene.worker(target=TARGET)
        second.until("worker ready")
        assert await culprits.quick() == second.process.pid  # who would take it over, if anybody might
        assert await task == first.process.pid
        assert (await culprits.app.get_task(task.id)).attempts == 1
    assert len(scene.lines("begins")) == len(scene.lines("ends")) == 1
    assert os.getpid() not in (first.process.pid, second.process.pid)
