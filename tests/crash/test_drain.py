"""A worker that is asked to stop takes no more, cancels nothing, and leaves everything to its successor."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

from tests.crash.scene import LIMIT_S, Scene

LEAVES = 10
TREES = 3


async def test_a_drain_in_the_middle_of_a_tree_cancels_nothing_and_its_children_are_used_again(
    scene: Scene,
) -> None:
    trees = [await scene.app.submit(scene.ledger.tree(LEAVES, str(scene.gate))) for _ in range(TREES)]
    first = scene.worker(concurrency=100)
    await scene.noted("begin", TREES * LEAVES)
    await scene.until_counted("succeeded", TREES * LEAVES // 2)  # the others wait for the gate

    first.signal(signal.SIGTERM)
    assert first.ended().code == 0

    counts = await scene.app.counts()
    assert (counts["leased"], counts["failed"], counts["cancelled"]) == (0, 0, 0)
    assert counts["ready"] == TREES + TREES * LEAVES // 2
    scene.gate.touch()
    scene.worker(concurrency=100)
    async with asyncio.timeout(LIMIT_S):
        assert await asyncio.gather(*trees) == [sum(range(LEAVES))] * TREES
    assert scene.times("did") == Counter({str(n): TREES for n in range(LEAVES)})
    assert scene.times("begin-tree") == Counter({tree.id: 2 for tree in trees})
    assert scene.times("did-tree") == Counter({tree.id: 1 for tree in trees})
    counts = await scene.app.counts()
    assert (counts["succeeded"], sum(counts.values())) == (TREES * (LEAVES + 1),) * 2
    for tree in trees:
        await tree.refresh()
        assert tree.attempts == 1  # a drain costs no attempt


async def test_another_worker_takes_a_drained_tree_over_while_it_runs_children_of_it(scene: Scene) -> None:
    workers = [scene.worker(concurrency=4), scene.worker(concurrency=4)]
    for worker in workers:
        worker.until("worker ready")
    trees = [await scene.app.submit(scene.ledger.tree(LEAVES, str(scene.gate))) for _ in range(TREES)]
    await scene.noted("begin-tree", 1)
    of_tree = {pid for _, pid in scene.lines("begin-tree")}
    first = next(worker for worker in workers if worker.process.pid in of_tree)

    first.signal(signal.SIGTERM)
    assert first.ended().code == 0
    scene.gate.touch()
    async with asyncio.timeout(LIMIT_S):
        assert await asyncio.gather(*trees) == [sum(range(LEAVES))] * TREES

    assert scene.times("did") == Counter({str(n): TREES for n in range(LEAVES)})
    counts = await scene.app.counts()
    assert (counts["succeeded"], sum(counts.values())) == (TREES * (LEAVES + 1),) * 2


async def test_running_bodies_have_the_grace_period_to_finish(scene: Scene) -> None:
    task = await scene.app.submit(scene.ledger.hold(1, str(scene.gate)))
    worker = scene.worker(grace=LIMIT_S)
    await scene.noted("begin", 1)

    worker.signal(signal.SIGTERM)
    worker.until("no more calls are taken")
    late = await scene.app.submit(scene.ledger.work(2))
    scene.gate.touch()
    assert worker.ended().code == 0

    assert await asyncio.wait_for(task, LIMIT_S) == 1
    assert (scene.lines("cancelled"), len(scene.lines("begin"))) == ([], 1)
    await late.refresh()
    assert late.state == "ready"


async def test_the_second_signal_releases_what_runs_at_once(scene: Scene) -> None:
    task = await scene.app.submit(scene.ledger.hold(1, str(scene.gate)))
    worker = scene.worker(grace=LIMIT_S)
    await scene.noted("begin", 1)

    worker.signal(signal.SIGTERM)
    worker.until("no more calls are taken")
    worker.signal(signal.SIGTERM)
    assert worker.ended().code == 128 + signal.SIGTERM

    assert len(scene.lines("cancelled")) == 1
    await task.refresh()
    assert (task.state, task.attempts) == ("ready", 0)


async def test_what_runs_longer_than_the_grace_period_is_released(scene: Scene) -> None:
    task = await scene.app.submit(scene.ledger.hold(1, str(scene.gate)))
    worker = scene.worker(grace=0.1)
    await scene.noted("begin", 1)

    worker.signal(signal.SIGTERM)
    assert worker.ended().code == 0

    await task.refresh()
    assert (task.state, task.attempts) == ("ready", 0)
    assert len(scene.lines("cancelled")) == 1


async def test_the_third_signal_kills(scene: Scene) -> None:
    task = await scene.app.submit(scene.ledger.stay(1, str(scene.gate)))
    worker = scene.worker(grace=LIMIT_S)
    await scene.noted("begin", 1)

    for said in ("no more calls are taken", "SIGTERM again"):
        worker.signal(signal.SIGTERM)
        worker.until(said)  # also while a body blocks the loop
    worker.signal(signal.SIGTERM)
    assert worker.ended().code == 128 + signal.SIGTERM

    scene.gate.touch()
    scene.worker()
    assert await asyncio.wait_for(task, LIMIT_S) == 1
