"""A call lives through twenty deploys: its worker is told to end, and another takes it over."""

from __future__ import annotations

import asyncio
import signal

from everloop._core.records import Snapshot
from everloop.store.url import store_from_url
from tests.crash.scene import LIMIT_S, Scene
from tests.helpers.nursery import Nursery

PROGRAM = "tests.crash.programs.ledger"
RESTARTS = 20


async def restarted(scene: Scene) -> None:
    """Restart its worker so often, and see that this costs it nothing."""
    with Nursery(PROGRAM, folder=scene.folder, env=scene.env) as nursery:
        task = await scene.app.submit(scene.ledger.hold(1, str(scene.gate)))
        worker = nursery.worker(f"{PROGRAM}:app", "--grace", "0")
        for restarts in range(1, RESTARTS + 1):
            await scene.noted("begin", restarts)
            successor = nursery.worker(f"{PROGRAM}:app", "--grace", "0")
            worker.signal(signal.SIGTERM)
            assert await asyncio.to_thread(worker.ended, LIMIT_S) == 0, worker.err
            numbers = await stored(scene, task.id)
            assert (numbers.attempt, numbers.crashes) == (0, 0)
            worker = successor
        await scene.noted("begin", RESTARTS + 1)
        scene.gate.touch()
        async with asyncio.timeout(LIMIT_S):
            assert await task == 1
        numbers = await stored(scene, task.id)
        assert (numbers.state, numbers.attempt, numbers.crashes) == ("succeeded", 1, 0)
    assert len({pid for _, pid in scene.lines("begin")}) == RESTARTS + 1
    assert (len(scene.lines("cancelled")), len(scene.lines("did"))) == (RESTARTS, 1)


async def stored(scene: Scene, id_: str) -> Snapshot:
    """Return what the store knows of a call."""
    store = store_from_url(scene.store)
    await store.open()
    try:
        (found,) = await store.get([id_])
    finally:
        await store.close()
    assert found is not None
    return found
