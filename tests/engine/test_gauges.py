"""What workers tell of themselves, and how it is read."""

from __future__ import annotations

import asyncio
import os
import socket
from datetime import UTC, datetime

import pytest

from everloop import App, WorkerInfo
from everloop._core.clock import SECOND, ManualClock, moment
from everloop._core.looks import Gauges, SessionLook
from everloop._workers import workers_of
from everloop.engine.gauges import resident
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.sessions import renew
from everloop.store.sql.verbs.statement import Statement
from tests.engine.conftest import worker_of


async def told(app: App, *, running: int) -> WorkerInfo:
    """Wait until the only worker has told that so many bodies run."""
    async with asyncio.timeout(30):
        while True:
            workers = await app.workers()
            if workers and workers[0].running == running:
                return workers[0]
            await asyncio.sleep(0.02)


@pytest.mark.timeout(90)
async def test_a_worker_tells_of_its_slots_its_memory_and_its_loop(store: str) -> None:
    app = App("test", store, lease=0.5, embed=False)
    gate = asyncio.Event()

    @app.task(queue="held")
    async def hold() -> None:
        await gate.wait()

    async with app:
        assert await app.workers() == []
        async with app.worker(concurrency=7):
            worker_of(app).memory_limit = 1 << 40
            tasks = [app.create_task(hold()) for _ in range(3)]
            worker = await told(app, running=3)
            assert (worker.host, worker.pid) == (socket.gethostname(), os.getpid())
            assert (worker.queues, worker.calls, worker.slots) == (("default", "held"), 3, 7)
            assert worker.alive
            assert worker.started <= datetime.now(UTC)
            assert worker.memory is not None and 0.2 * resident() < worker.memory < 5 * resident()
            assert worker.memory_limit == 1 << 40
            assert worker.lag is not None and 0 <= worker.lag < 60
            gate.set()
            await asyncio.gather(*tasks)
            await told(app, running=0)
        assert await app.workers() == [], "it is a client now"


def test_gauges_go_with_the_renewal_in_no_statement_of_their_own() -> None:
    gauges = Gauges(memory=1, lag=2, running=3, slots=4)
    verb = renew(Scope(ManualClock(), 1, {}, {}), SECOND, gauges)
    asked = [next(verb), verb.send([[1]])]
    with pytest.raises(StopIteration) as end:
        verb.send([])
    assert [each.name for each in asked if isinstance(each, Statement)] == ["session_find", "session_renew"]
    assert end.value.value is True


def test_what_has_told_nothing_yet_is_not_known() -> None:
    worker = SessionLook(7, "shop", "worker", "here", 42, SECOND, 5 * SECOND, 3, ("default",))
    client = worker._replace(number=8, kind="client")
    late = worker._replace(number=9, gauges=Gauges(memory=5, lag=1_500_000, running=1, slots=2))

    unknown, over = workers_of([worker, client, late], 5 * SECOND)

    assert unknown == WorkerInfo(
        7, "here", 42, moment(SECOND), False, ("default",), 3, None, None, None, None, None
    )
    assert (over.session, over.running, over.slots, over.memory) == (9, 1, 2, 5)
    assert (over.memory_limit, over.lag, over.alive) == (None, 1.5, False)
    assert workers_of([worker], 5 * SECOND - 1)[0].alive
