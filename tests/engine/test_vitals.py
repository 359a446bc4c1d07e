"""Why a worker takes no calls: it is never stuck in silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from everloop import App
from everloop.engine.vitals import SILENT, STUCK, Vitals
from tests.engine.conftest import make
from tests.engine.faults import Faults
from tests.helpers.waiting import until


@pytest.fixture
async def app(sqlite: str) -> App:
    return make(sqlite)


@pytest.fixture
async def faults(app: App) -> Faults:
    return Faults(app)


@pytest.fixture
async def vitals(app: App, faults: Faults) -> AsyncIterator[Vitals]:
    async with app.worker(concurrency=2):
        session = app._sessions.current().session
        assert session.worker is not None
        yield Vitals(session, session.worker)
        faults.come_back()


async def test_an_idle_worker_is_well(vitals: Vitals) -> None:
    await until(lambda: vitals.why_not() == "")
    assert vitals.dying() == ""


async def test_the_store_is_away(vitals: Vitals, faults: Faults) -> None:
    faults.go_away()
    await until(lambda: vitals.why_not() == "the store does not answer")
    faults.come_back()
    await until(lambda: vitals.why_not() == "")


async def test_the_store_hangs(vitals: Vitals) -> None:
    turns = vitals.session.turns
    turns._answered_at -= SILENT + 2
    assert vitals.why_not() == "the store has not answered for 12 s"
    turns.look()
    await until(lambda: vitals.why_not() == "")


async def test_every_slot_is_taken_and_nothing_ends(app: App, vitals: Vitals) -> None:
    gate = asyncio.Event()

    @app.task
    async def hold() -> None:
        await gate.wait()

    worker = vitals.worker
    worker.add_functions(app.serves(None))
    tasks = [app.create_task(hold()) for _ in range(2)]
    await until(lambda: worker.room == 0)
    assert vitals.why_not() == ""
    worker._moved_at -= STUCK + 1
    assert vitals.why_not() == "all 2 slots are taken, and no call has ended for 301 s"
    gate.set()
    await asyncio.wait(tasks)
    assert vitals.why_not() == ""


async def test_it_drains(app: App, vitals: Vitals) -> None:
    vitals.worker.draining = True
    assert vitals.why_not() == "it is draining"


async def test_its_leases_are_not_renewed(vitals: Vitals) -> None:
    keeper = vitals.session._keeper
    assert keeper is not None
    keeper.stop()
    assert vitals.dying() == "the thread that renews its leases has ended"
