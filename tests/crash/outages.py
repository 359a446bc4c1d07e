"""The store is away for longer than a lease, while a thousand bodies run: nobody is taken for dead."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

from everloop import App
from everloop.store.url import sqlite_path
from tests.crash.programs.waiting import LEASE, Waiting
from tests.crash.scene import Scene
from tests.helpers.servers.server import Server

PROGRAM = "tests.crash.programs.waiting"
BODIES = 1_000
LIMIT_S = 90.0


@contextmanager
def without(server: Server) -> Iterator[None]:
    """Kill a server, and start it afterwards."""
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def locked(store: str) -> Iterator[None]:
    """Hold an SQLite file, as another program's open transaction does."""
    with closing(sqlite3.connect(sqlite_path(store), timeout=LIMIT_S, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def outlived(
    scene: Scene, outage: AbstractContextManager[object], away: float, lease: float
) -> dict[str, Any]:
    """Let a thousand bodies run in two workers through an outage, half of them to its end and beyond.

    Args:
        scene: On which store.
        outage: The store answers nobody within this block.
        away: For so many seconds.
        lease: The lease of the workers, in seconds, which is shorter.

    Returns:
        What was found.
    """
    scene.env[LEASE] = str(lease)
    workers = [scene.worker(concurrency=BODIES // 2, target=f"{PROGRAM}:app") for _ in range(2)]
    for worker in workers:
        worker.until("worker ready", LIMIT_S)
    waiting = Waiting(scene.store, lease)
    early, late = scene.folder / "early", scene.folder / "late"
    # One of a shorter lease looks more often than the workers do, and is the first to come back.
    async with App("impatient", scene.store, embed=False, lease=1.0) as impatient, waiting.app:
        await impatient.counts()
        gates = (str(early), str(late))
        tasks = await waiting.app.submit_many(waiting.wait(n, gates[n % 2]) for n in range(BODIES))
        await scene.noted("begin", BODIES)
        assert (await waiting.app.counts())["leased"] == BODIES

        with outage:
            await asyncio.sleep(away / 2)
            early.touch()  # they end while nobody can be told
            await scene.noted("did", BODIES // 2)
            await asyncio.sleep(away / 2)

        async with asyncio.timeout(LIMIT_S):
            assert await asyncio.gather(*tasks[::2]) == list(range(0, BODIES, 2))
            late.touch()
            assert await asyncio.gather(*tasks) == list(range(BODIES))
        stored = await waiting.app.tasks(limit=BODIES + 1)

    once = Counter(map(str, range(BODIES)))
    assert Counter((task.state, task.attempts) for task in stored) == {("succeeded", 1): BODIES}
    assert scene.times("begin") == once
    assert scene.times("did") == once
    for worker in workers:
        assert "new session" not in worker.err
    return {"away_s": away, "lease_s": lease, "bodies": BODIES, "repeated": 0, "lost": 0}
