"""The server's disk is full: that is said, nothing is lost, and all goes on by itself when there is space."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.scene import LIMIT_S, Scene
from tests.helpers.servers.fixtures import required
from tests.helpers.servers.small_disk import MariaOnSmallDisk, OnSmallDisk, PostgresOnSmallDisk, SmallDisk

pytestmark = pytest.mark.server

BODIES, MORE = 10, 200
TOLD = {
    "mariadb": "The table 'ever_calls' is full (1114)",
    "postgresql": "No space left on device (53100)",
}


@pytest.fixture(params=[MariaOnSmallDisk, PostgresOnSmallDisk], ids=["mariadb", "postgresql"])
def small(request: pytest.FixtureRequest) -> Iterator[OnSmallDisk]:
    if not SmallDisk.possible():
        pytest.skip("only root can mount a small disk")
    server = required(request.param, fast=False)
    assert isinstance(server, OnSmallDisk)
    with server:
        yield server


async def test_calls_wait_for_space_and_run_once(
    small: OnSmallDisk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack, small.database())
        async with scene.app:
            worker = scene.worker(concurrency=BODIES)
            tasks = await scene.app.submit_many(scene.ledger.hold(n, str(scene.gate)) for n in range(BODIES))
            await scene.noted("begin", BODIES)

            small.disk.fill()
            # A long way to the same file: these calls do not fit into what the tables have.
            gate = "/" * 2_000 + str(scene.gate)
            calls = [scene.ledger.hold(n, gate) for n in range(BODIES, BODIES + MORE)]
            submitting = asyncio.create_task(scene.app.submit_many(calls))
            await scene.until(lambda: any(TOLD[small.kind] in each.message for each in caplog.records))
            scene.gate.touch()  # bodies end, and their outcomes find no space either
            await scene.noted("did", BODIES)
            assert not submitting.done()

            small.disk.free()
            small.start()  # where it has ended itself
            async with asyncio.timeout(LIMIT_S):
                tasks += await submitting
                assert await asyncio.gather(*tasks) == list(range(BODIES + MORE))
            assert scene.times("did") == Counter(map(str, range(BODIES + MORE)))
            assert (await scene.app.counts())["succeeded"] == BODIES + MORE
        assert worker.process.poll() is None
    (text,) = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert text.startswith("everloop: the store does not answer (")
    assert text.endswith(
        f"{TOLD[small.kind]}; the server's disk is full: give it space, and what waits goes on by itself); "
        "going on when it does"
    )
