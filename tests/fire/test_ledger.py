"""Calls under fire: a worker, the database server and the network die, and every call has its effect."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from everloop import App
from tests.crash.scene import Scene, stop
from tests.helpers.processes import Running
from tests.helpers.servers.proxy import Proxy
from tests.helpers.servers.server import Server

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

PROGRAM = "tests.fire.programs.fire"
CALLS = 600
#: Bodies at once in each of the two workers.
CONCURRENCY = 2
#: Everybody goes on by himself within so many seconds after the server, or the network, is back.
RESUME_S = 5.0
#: Everything together takes no longer.
LIMIT_S = 60.0


class Fire:
    """Two workers and a client behind a proxy, and what befalls them."""

    def __init__(self, scene: Scene, app: App, server: Server, proxy: Proxy) -> None:
        self.scene = scene
        self.app = app
        self.server = server
        self.proxy = proxy
        self.workers = [self.started(), self.started()]
        for worker in self.workers:
            worker.until("worker ready")
        self.client = scene.program("-m", PROGRAM, str(CALLS))
        #: What was leased when a worker was killed, by that worker's process.
        self.struck: dict[int, set[str]] = {}

    def started(self) -> Running:
        return self.scene.worker(concurrency=CONCURRENCY, target=f"{PROGRAM}:app")

    async def kill_a_worker(self) -> None:
        victim = self.workers.pop(0)
        stop(victim)  # first: what it holds stays so while we look
        self.struck[victim.process.pid] = {task.id for task in await self.app.tasks(state="leased")}
        victim.kill()
        self.workers.append(self.started())

    async def kill_the_server(self) -> None:
        self.server.kill()
        self.server.start()
        await self.everybody_goes_on()

    async def cut_all_connections(self) -> None:
        self.proxy.cut()
        await self.everybody_goes_on()

    async def everybody_goes_on(self) -> None:
        """See each worker that has begun end another body, and the client get another result."""
        did, got = self.by_process("did"), self.by_process("got")
        async with asyncio.timeout(RESUME_S):
            await self.scene.until(lambda: self.has_gone_on("did", did) and self.has_gone_on("got", got))

    def has_gone_on(self, word: str, before: Counter[int]) -> bool:
        now = self.by_process(word)
        living = {worker.process.pid for worker in [*self.workers, self.client]}
        return len(self.scene.times(word)) == CALLS or all(
            now[pid] > times for pid, times in before.items() if pid in living
        )

    def by_process(self, word: str) -> Counter[int]:
        return Counter(pid for _, pid in self.scene.lines(word))


async def test_every_call_has_its_effect_and_its_result_whatever_dies(
    own: Server, tmp_path: Path, rng: random.Random
) -> None:
    with Proxy(own.port) as proxy, ExitStack() as stack:
        url = own.database()
        scene = Scene(tmp_path, stack, url)  # the test itself looks past the proxy
        scene.env["EVERLOOP_STORE"] = proxy.url(url)
        async with App("fire", url, embed=False) as app:
            fire = Fire(scene, app, own, proxy)
            events: list[Callable[[], Awaitable[None]]] = [
                fire.kill_a_worker,
                fire.kill_the_server,
                fire.cut_all_connections,
                fire.cut_all_connections,
            ]
            rng.shuffle(events)
            for point, event in zip(sorted(rng.sample(range(20, CALLS - 60), 4)), events, strict=True):
                print(f"after {point} effects: {event.__name__}")
                await scene.noted("did", point)
                await event()

            ended = await asyncio.to_thread(fire.client.ended, LIMIT_S)
            assert ended.checked().lines == ["got everything"]
            counts = await app.counts()
            ids = {task.id for task in await app.tasks(limit=10_000)}

    assert (counts["succeeded"], sum(counts.values())) == (CALLS, CALLS)
    assert scene.times("got") == Counter(dict.fromkeys(ids, 1))
    assert set(scene.times("did")) == ids, "every call has had its effect"
    runs: dict[str, list[int]] = {}
    for id_, pid in scene.lines("begin"):
        runs.setdefault(id_, []).append(pid)
    for id_, pids in runs.items():
        for pid in pids[:-1]:
            assert id_ in fire.struck.get(pid, set()), (
                f"{id_} ran again, and {pid} was not killed while it ran"
            )
