"""A body that blocks its loop for ten leases, beside another worker that would take it over."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

from tests.crash.scene import Scene

TARGET = "tests.crash.programs.culprits:app"


def program(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The app of those workers, as a client here."""
    monkeypatch.setenv("EVERLOOP_STORE", scene.store)
    monkeypatch.delitem(sys.modules, "tests.crash.programs.culprits", raising=False)
    return importlib.import_module("tests.crash.programs.culprits")


async def blocked(scene: Scene, culprits: Any) -> None:
    """See that it runs once, to its end."""
    async with culprits.app:
        workers = [scene.worker(target=TARGET) for _ in range(2)]
        for worker in workers:
            worker.until("worker ready")
        task = await culprits.app.submit(culprits.block(10 * culprits.LEASE))
        await scene.noted("begins", 1)
        ((_, blocking),) = scene.lines("begins")
        (other,) = {worker.process.pid for worker in workers} - {blocking}
        assert await culprits.quick() == other  # who would take it over, if anybody might
        assert await task == blocking
        assert (await culprits.app.get_task(task.id)).attempts == 1
    assert len(scene.lines("begins")) == len(scene.lines("ends")) == 1
