"""A body that blocks its loop for ten leases, beside another worker that would take it over."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

from tests.crash.scene import Scene
from tests.helpers.waiting import until

TARGET = "tests.crash.programs.culprits:app"


def program(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The app of those workers, as a client here."""
    monkeypatch.setenv("EVERLOOP_STORE", scene.store)
    monkeypatch.delitem(sys.modules, "tests.crash.programs.culprits", raising=False)
    return importlib.import_module("tests.crash.programs.culprits")


async def _asked_for(culprits: Any) -> None:
    """See that what the blocked worker was asking the store for when it blocked has been leased."""
    first = await culprits.app.submit(culprits.quick())

    async def leased() -> bool:
        return (await culprits.app.get_task(first.id)).state != "queued"

    await until(leased)


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
        await _asked_for(culprits)
        assert await culprits.quick() == other  # who would take it over, if anybody might
        assert await task == blocking
        assert (await culprits.app.get_task(task.id)).attempts == 1
    assert len(scene.lines("begins")) == len(scene.lines("ends")) == 1
