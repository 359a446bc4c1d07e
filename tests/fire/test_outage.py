"""The server is away for as long as a lease: whoever lives is taken for dead by nobody."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from everloop import App
from tests.crash.scene import Scene
from tests.fire.programs.long_lease import LongLease
from tests.helpers.servers.server import Server

pytestmark = [pytest.mark.server, pytest.mark.timeout(90)]

PROGRAM = "tests.fire.programs.long_lease"
BODIES = 50
#: As long as the lease of the workers: at its end they are late, all of them.
AWAY_S = 10.0
LIMIT_S = 30.0


async def test_bodies_that_run_through_an_outage_run_once(own: Server, tmp_path: Path) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack, own.database())
        workers = [scene.worker(concurrency=BODIES // 2, target=f"{PROGRAM}:app") for _ in range(2)]
        for worker in workers:
            worker.until("worker ready")
        # One of a shorter lease looks more often than the workers do, and is the first to come back.
        long = LongLease(scene.store)
        async with App("impatient", scene.store, embed=False, lease=1.0) as impatient, long.app:
            await impatient.counts()
            tasks = await long.app.submit_many(long.hold(n, str(scene.gate)) for n in range(BODIES))
            await scene.noted("begin", BODIES)

            own.stop()
            await asyncio.sleep(AWAY_S / 2)
            scene.gate.touch()  # they end while nobody can be told
            await scene.noted("did", BODIES)
            await asyncio.sleep(AWAY_S / 2)
            own.start()

            async with asyncio.timeout(LIMIT_S):
                assert await asyncio.gather(*tasks) == list(range(BODIES))
            for task in tasks:
                await task.refresh()
                assert (task.state, task.attempts) == ("succeeded", 1)

        assert scene.times("begin") == Counter(map(str, range(BODIES)))
        assert scene.times("did") == Counter(map(str, range(BODIES)))
        for worker in workers:
            assert "new session" not in worker.err
