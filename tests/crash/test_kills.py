"""Processes die at any moment: nothing is lost, and nothing runs twice that was not running then."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter

import pytest

from everloop import TaskCrashed
from tests.crash.scene import LIMIT_S, Scene

CALLS, KILLS = 1_000, 5


async def test_five_kills_while_calls_run_lose_nothing_and_fail_nothing(
    scene: Scene, rng: random.Random
) -> None:
    tasks = await scene.app.submit_many(scene.ledger.work(n) for n in range(CALLS))
    number_of = {task.id: str(n) for n, task in enumerate(tasks)}
    victims: dict[int, set[str]] = {}

    for point in sorted(rng.sample(range(20, CALLS - 150), KILLS)):
        worker = scene.worker()
        await scene.noted("did", point)
        struck = victims[worker.process.pid] = {number_of[id] for id in await scene.kill(worker)}
        assert struck, f"the kill after {point} effects struck nobody"
    scene.worker()
    async with asyncio.timeout(LIMIT_S):
        assert await asyncio.gather(*tasks) == list(range(CALLS))

    assert set(scene.times("did")) == set(number_of.values()), "every call has had its effect"
    runs: dict[str, list[int]] = {}
    for n, pid in scene.lines("begin"):
        runs.setdefault(n, []).append(pid)
    for n, pids in runs.items():
        for pid in pids[:-1]:
            assert n in victims[pid], f"{n} ran again, and was not running when {pid} was killed"
    counts = await scene.app.counts()
    assert (counts["succeeded"], sum(counts.values())) == (CALLS, CALLS)


async def test_when_one_of_two_workers_is_killed_the_other_takes_its_calls_over(scene: Scene) -> None:
    first, second = scene.worker(concurrency=5), scene.worker(concurrency=5)
    tasks = [await scene.app.submit(scene.ledger.hold(n, str(scene.gate))) for n in range(10)]
    await scene.noted("begin", 10)
    by_first = {n for n, pid in scene.lines("begin") if pid == first.process.pid}

    first.kill()
    scene.gate.touch()
    async with asyncio.timeout(LIMIT_S):
        assert await asyncio.gather(*tasks) == list(range(10))

    assert len(by_first) == 5
    assert {n for n, times in scene.times("begin").items() if times == 2} == by_first
    assert scene.times("did") == Counter(map(str, range(10)))
    assert {pid for _, pid in scene.lines("did")} == {second.process.pid}


async def test_the_calls_of_a_killed_client_go_on(scene: Scene) -> None:
    client = scene.program("-m", "tests.crash.programs.submitting", "100")
    client.until("submitted")
    client.kill()
    assert (await scene.app.counts())["ready"] == 201

    scene.worker()
    await scene.until_counted("succeeded", 201)

    assert scene.times("did") == Counter(map(str, range(201)))


async def test_the_late_outcomes_of_a_stopped_worker_are_refused_and_its_successors_stand(
    scene: Scene,
) -> None:
    zombie = scene.worker(concurrency=10)
    tasks = [await scene.app.submit(scene.ledger.hold(n, str(scene.gate))) for n in range(10)]
    await scene.noted("begin", 10)
    await scene.stop(zombie)

    successor = scene.worker(concurrency=10)
    await scene.noted("begin", 20)  # the lease has passed, and the calls went to the other
    held_by_successor = await scene.running()
    zombie.signal(signal.SIGCONT)
    zombie.until("opening a new session")
    await scene.noted("cancelled", 10)  # its bodies were stopped
    assert await scene.running() == held_by_successor, "stopping them took nothing from the successor"
    scene.gate.touch()
    async with asyncio.timeout(LIMIT_S):
        assert await asyncio.gather(*tasks) == list(range(10))

    assert {pid for _, pid in scene.lines("did")} == {successor.process.pid}
    for task in tasks:
        await task.refresh()
        assert (task.state, task.attempts) == ("succeeded", 1)
    # It has come back as a worker like any other.
    successor.kill()
    assert await asyncio.wait_for(await scene.app.submit(scene.ledger.work(77)), LIMIT_S) == 77
    assert scene.lines("did")[-1] == ("77", zombie.process.pid)


async def test_outcomes_that_a_stopped_worker_has_ready_are_refused(scene: Scene) -> None:
    zombie = scene.worker(concurrency=10)
    tasks = [await scene.app.submit(scene.ledger.hold(n, str(scene.gate))) for n in range(10)]
    await scene.noted("begin", 10)
    await scene.stop(zombie)
    successor = scene.worker(concurrency=10)
    await scene.noted("begin", 20)
    scene.gate.touch()
    async with asyncio.timeout(LIMIT_S):
        assert await asyncio.gather(*tasks) == list(range(10))

    # Its bodies see the open gate at once, and may be quicker than the news that the lease is lost.
    zombie.signal(signal.SIGCONT)
    zombie.until("opening a new session")
    zombie.signal(signal.SIGTERM)
    assert zombie.ended().code == 0

    counts = await scene.app.counts()
    assert (counts["succeeded"], sum(counts.values())) == (10, 10)
    for task in tasks:
        await task.refresh()
        assert task.attempts == 1
    assert successor.process.poll() is None


async def test_only_the_call_that_kills_its_workers_fails_and_not_its_neighbours(scene: Scene) -> None:
    neighbours = [await scene.app.submit(scene.ledger.hold(n, str(scene.gate))) for n in range(10)]
    culprit = await scene.app.submit(scene.ledger.die(99))
    for death in range(1, 6):
        assert scene.worker().ended().code == 9
        if death == 2:
            scene.gate.touch()  # from now on they are suspects, which run one at a time, and they end well
    scene.worker()

    with pytest.raises(TaskCrashed, match="its worker died with it 5 times; `crashes=4` allows 4"):
        await asyncio.wait_for(culprit, LIMIT_S)
    async with asyncio.timeout(LIMIT_S):
        assert await asyncio.gather(*neighbours) == list(range(10))
    await culprit.refresh()
    assert (culprit.attempts, scene.times("begin")["99"]) == (0, 5)
    assert scene.times("begin") - Counter({"99": 5}) == Counter({str(n): 3 for n in range(10)})
    assert scene.times("did") == Counter({str(n): 1 for n in range(10)})
