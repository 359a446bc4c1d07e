"""A worker that stands still for longer than its lease takes nothing back from its successor."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.scene import LIMIT_S, Scene, stop
from tests.crash.zombies import Zombies
from tests.fire.kinds import Kind
from tests.helpers.processes import Running
from tests.helpers.servers.server import Server

pytestmark = pytest.mark.server

BODIES = 10


@pytest.mark.timeout(180)
async def test_zombies_overwrite_nothing_after_a_drain_and_after_a_snooze(
    kind: Kind, server: Server, url: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack, url)

        async def stopped(worker: Running) -> None:
            await stop_between_transactions(worker, kind, server, url)

        await Zombies(scene, stopped).play()


async def stop_between_transactions(worker: Running, kind: Kind, server: Server, url: str) -> None:
    """Stop it where it holds no rows; what one holds that is within a transaction, nobody can take over."""
    async with asyncio.timeout(LIMIT_S):
        stop(worker)
        await asyncio.sleep(0.05)  # what it has sent arrives, and begins or ends a transaction
        while kind.open_transactions(server, url):
            worker.signal(signal.SIGCONT)
            await asyncio.sleep(0.005)
            stop(worker)
            await asyncio.sleep(0.05)


async def test_what_a_worker_does_after_its_lease_has_passed_is_refused(
    kind: Kind, server: Server, url: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack, url)
        async with scene.app:
            zombie = scene.worker(concurrency=BODIES)
            tasks = [await scene.app.submit(scene.ledger.hold(n, str(scene.gate))) for n in range(BODIES)]
            await scene.noted("begin", BODIES)
            await stop_between_transactions(zombie, kind, server, url)

            successor = scene.worker(concurrency=BODIES)
            await scene.noted("begin", 2 * BODIES)  # the lease has passed, and the calls went to the other
            held_by_successor = await scene.running()
            zombie.signal(signal.SIGCONT)
            zombie.until("opening a new session")
            await scene.noted("cancelled", BODIES)  # its bodies were stopped
            assert await scene.running() == held_by_successor, "that took nothing from the successor"
            scene.gate.touch()
            async with asyncio.timeout(LIMIT_S):
                assert await asyncio.gather(*tasks) == list(range(BODIES))

            assert {pid for _, pid in scene.lines("did")} == {successor.process.pid}
            for task in tasks:
                await task.refresh()
                assert (task.state, task.attempts) == ("succeeded", 1)
            # It has come back as a worker like any other.
            successor.kill()
            assert await asyncio.wait_for(await scene.app.submit(scene.ledger.work(77)), LIMIT_S) == 77
            assert scene.lines("did")[-1] == ("77", zombie.process.pid)


async def test_outcomes_that_a_stopped_worker_has_ready_are_refused(
    kind: Kind, server: Server, url: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack, url)
        async with scene.app:
            zombie = scene.worker(concurrency=BODIES)
            tasks = [await scene.app.submit(scene.ledger.hold(n, str(scene.gate))) for n in range(BODIES)]
            await scene.noted("begin", BODIES)
            await stop_between_transactions(zombie, kind, server, url)
            scene.worker(concurrency=BODIES)
            await scene.noted("begin", 2 * BODIES)
            scene.gate.touch()
            async with asyncio.timeout(LIMIT_S):
                assert await asyncio.gather(*tasks) == list(range(BODIES))

            # Its bodies see the open gate at once, and may be quicker than the news that the lease is lost.
            zombie.signal(signal.SIGCONT)
            zombie.until("opening a new session")
            zombie.signal(signal.SIGTERM)
            assert zombie.ended().code == 0

            counts = await scene.app.counts()
            assert (counts["succeeded"], sum(counts.values())) == (BODIES, BODIES)
            for task in tasks:
                await task.refresh()
                assert task.attempts == 1
