"""Where the running bodies of a worker are, as whoever wonders is told."""

from __future__ import annotations

import asyncio
import threading

import pytest

from everloop.cli.stacks import Stacks
from everloop.engine import whereabouts as module
from everloop.engine.vitals import STUCK, Vitals
from everloop.engine.whereabouts import whereabouts
from tests.engine.conftest import make, worker_of
from tests.helpers.waiting import until

HERE = "tests/engine/test_whereabouts.py"


async def inner(gate: asyncio.Event) -> None:
    await gate.wait()


def outer(gate: threading.Event) -> None:
    gate.wait()


async def test_what_runs_is_told_with_the_lines_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    app = make("memory://")
    gate, stop = asyncio.Event(), threading.Event()
    began: list[str] = []

    @app.task
    async def waits() -> None:
        began.append("waits")
        await inner(gate)

    @app.task
    def blocks() -> None:
        began.append("blocks")
        outer(stop)

    @app.task
    async def asks() -> None:
        began.append("asks")
        await waits()

    async with app.worker():
        worker = worker_of(app)
        assert whereabouts(worker) == []
        first = app.create_task(asks())
        await until(lambda: began == ["asks", "waits"])
        second = app.create_task(blocks())
        await until(lambda: began == ["asks", "waits", "blocks"])
        child = next(attempt.leased.id for attempt in worker.attempts(9) if attempt.leased.lane.fn == "waits")

        told = whereabouts(worker)

        assert told[0] == f"asks {first.id}, which waits for its children"
        assert [place.split(" in ")[1] for place in told[1:2]] == ["asks"]
        at = told.index(f"waits {child}")
        assert [place.split(" in ")[1] for place in told[at + 1 : at + 4]] == ["waits", "inner", "wait"]
        assert all(place.startswith(f"    {HERE}:") for place in told[at + 1 : at + 3])
        at = told.index(f"blocks {second.id}, in a thread")
        assert [place.split(" in ")[1] for place in told[at + 1 : at + 4]] == ["blocks", "outer", "wait"]
        assert not any("/everloop/" in line for line in told), "its own are left out"

        monkeypatch.setattr(module, "MOST", 1)
        assert whereabouts(worker)[-1] == "and 2 more"
        gate.set()
        stop.set()
        await asyncio.gather(first, second)


async def test_it_is_said_once_when_nothing_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    app = make("memory://")
    gate = asyncio.Event()

    @app.task
    async def waits() -> None:
        await inner(gate)

    async with app.worker(concurrency=1):
        worker = worker_of(app)
        stacks = Stacks(Vitals(app._sessions.current().session, worker))
        task = app.create_task(waits())
        await until(lambda: worker.room == 0)
        stacks.look()
        assert capfd.readouterr().err == ""
        worker._moved_at -= STUCK + 1
        stacks.look()
        stacks.look()
        said = capfd.readouterr().err
        assert said.startswith("everloop: all 1 slots are taken, and no call has ended for 301 s; pid ")
        assert said.count(" holds these calls:\n") == 1
        assert f"    waits {task.id}\n        {HERE}:" in said
        gate.set()
        await task
        stacks.look()
        stacks.say()
        assert capfd.readouterr().err.endswith(" holds no call\n")
