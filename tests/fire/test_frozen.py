"""A worker that stands still within a transaction: what it holds is taken over all the same."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.scene import LIMIT_S, Scene
from tests.helpers.servers.server import Server

pytestmark = pytest.mark.server

FREE = "select session from ever_sessions where kind = 'worker' for update skip locked"
TARGET = "tests.fire.programs.frozen:app"


async def test_what_a_process_holds_that_was_stopped_within_a_transaction_is_taken_over(
    server: Server, url: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack, url)
        async with scene.app:
            zombie = scene.worker(concurrency=4, target=TARGET)
            tasks = [await scene.app.submit(scene.ledger.hold(n, str(scene.gate))) for n in range(2)]
            await scene.noted("begin", 2)
            (tmp_path / "stop").touch()
            tasks += [await scene.app.submit(scene.ledger.hold(n, str(scene.gate))) for n in range(2, 4)]
            await asyncio.to_thread(os.waitid, os.P_PID, zombie.process.pid, os.WSTOPPED | os.WNOWAIT)
            assert not server.execute(FREE, database=url), "it holds its session"

            successor = scene.worker(concurrency=4, target=TARGET)
            await scene.noted("begin", 6)  # two of them again, and two for the first time
            scene.gate.touch()
            async with asyncio.timeout(LIMIT_S):
                assert await asyncio.gather(*tasks) == list(range(4))
            assert {pid for _, pid in scene.lines("did")} == {successor.process.pid}

            zombie.signal(signal.SIGCONT)
            zombie.until("opening a new session")
            zombie.signal(signal.SIGTERM)
            assert zombie.ended().code == 0
            for task in tasks:
                await task.refresh()
                assert (task.state, task.attempts) == ("succeeded", 1)
