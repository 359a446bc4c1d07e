"""The worker by itself: what it does with leases and cancellations, without a store."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any, Literal

import pytest

from everloop._core.calls import Event
from everloop._core.records import Cancel, Lane, Leased, Outcome, Progress
from everloop.engine.attempt import Attempt
from everloop.engine.executor import Policy
from everloop.engine.worker import Worker
from tests.helpers.waiting import until

LANE = Lane("a", "default", "work")


class Turns:
    """Stands for the turn loop: keeps what it is told."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.reports: list[Progress] = []

    def settle(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def progress(self, progress: Progress) -> None:
        self.reports.append(progress)

    def look(self) -> None:
        """Nobody is there to make a turn."""


class Work:
    """A function whose bodies wait for a gate each."""

    name = "work"
    run: Literal["loop"] = "loop"
    policy = Policy()

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.attempts: list[Attempt] = []

    async def invoke(self, attempt: Attempt) -> bytes:
        self.attempts.append(attempt)
        await self.gates.setdefault(attempt.leased.id, asyncio.Event()).wait()
        return b"jvalue"


class Scene:
    """A worker of one function, and what it tells."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.work = Work()
        turns: Any = self.turns
        self.worker = Worker(turns, {LANE: self.work}, 10, lambda: 0)

    async def begin(self, id: str, *, fence: int = 1, crashes: int = 0) -> None:
        """Start a body, and see it wait."""
        leased = Leased(id, fence, LANE, b"j", b"", 0, crashes, 0, 0, None, 0, 0)
        self.worker.begin([leased])
        await until(lambda: id in self.work.gates)

    async def end(self, id: str) -> None:
        self.work.gates[id].set()
        await until(lambda: any(outcome.id == id for outcome in self.turns.outcomes))


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    yield scene
    await scene.worker.unwind()


async def test_one_suspect_runs_at_a_time_and_the_next_once_it_has_ended(scene: Scene) -> None:
    await scene.begin("sound", crashes=1)
    assert scene.worker.takes_suspects
    await scene.begin("suspect", crashes=2)
    assert not scene.worker.takes_suspects
    await scene.end("sound")
    assert not scene.worker.takes_suspects
    await scene.end("suspect")
    assert scene.worker.takes_suspects


async def test_a_suspect_that_waits_for_its_children_is_none_that_runs(scene: Scene) -> None:
    await scene.begin("suspect", crashes=2)
    (attempt,) = scene.work.attempts

    attempt.child_began()
    attempt.child_began()
    assert scene.worker.takes_suspects
    attempt.child_ended()
    assert scene.worker.takes_suspects
    attempt.child_ended()
    assert not scene.worker.takes_suspects


async def test_a_cancellation_of_another_lease_stops_no_body(scene: Scene) -> None:
    await scene.begin("call", fence=3)

    scene.worker.cancel([Cancel("call", 2, "too late"), Cancel("other", 3, "not here")])
    assert scene.work.attempts[0].stopping is None
    scene.worker.cancel([Cancel("call", 3, "enough")])
    await until(lambda: bool(scene.turns.outcomes))
    assert scene.turns.outcomes == [Outcome("call", 3, Event.CANCEL)]


async def test_what_arrives_while_it_drains_is_given_back_and_nothing_more_is_taken(scene: Scene) -> None:
    assert scene.worker.room == 10
    await scene.worker.drain(0)

    assert scene.worker.room == 0
    scene.worker.begin([Leased("late", 5, LANE, b"j", b"", 0, 0, 0, 0, None, 0, 0)])
    assert scene.turns.outcomes == [Outcome("late", 5, Event.RELEASE)]
    assert scene.work.attempts == []
    assert scene.worker.holding == ()


async def test_a_drain_waits_for_what_runs_and_no_longer_than_that(scene: Scene) -> None:
    await scene.begin("first")
    await scene.begin("second")
    draining = asyncio.ensure_future(scene.worker.drain(3_600))
    await until(lambda: scene.worker.draining)

    await scene.end("first")
    assert not draining.done()
    await scene.end("second")
    async with asyncio.timeout(20):
        await draining
    assert [outcome.event for outcome in scene.turns.outcomes] == [Event.SUCCEED] * 2


async def test_a_drain_that_is_hurried_gives_back_what_runs(scene: Scene) -> None:
    await scene.begin("call")
    draining = asyncio.ensure_future(scene.worker.drain(3_600))
    await until(lambda: scene.worker.draining)

    scene.worker.hurry()
    async with asyncio.timeout(20):
        await draining
    assert scene.turns.outcomes == [Outcome("call", 1, Event.RELEASE)]


async def test_a_worker_of_processes_only_wants_no_more_calls_than_it_has_processes(scene: Scene) -> None:
    work = Work()
    work.run = "process"  # type: ignore[assignment]  # in place of a function that runs there
    turns: Any = scene.turns
    worker = Worker(turns, {LANE: work}, 10, lambda: 0, processes=1)
    assert worker.wants() == (1, (LANE,))

    worker.begin([Leased("call", 1, LANE, b"j", b"", 0, 0, 0, 0, None, 0, 0)])
    assert worker.wants() == (0, (LANE,))
    await worker.unwind()
    assert worker.wants() == (0, (LANE,)), "it drains"


async def test_nothing_is_kept_of_a_body_that_ended_before_its_timeout(scene: Scene) -> None:
    scene.work.policy = Policy(timeout=3_600_000_000)
    await scene.begin("limited")
    task = scene.work.attempts.pop().task
    assert task is not None
    scene.work.gates["limited"].set()
    await task
    del task
    await asyncio.sleep(0)

    gc.collect()
    kept = [each for each in gc.get_objects() if type(each) is Attempt and each.leased.id == "limited"]
    assert kept == []


async def test_a_body_begins_in_a_context_of_its_own(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    seen: list[str] = []
    wait = scene.work.invoke

    async def invoke(attempt: Attempt) -> bytes:
        seen.append(variable.get())
        variable.set(attempt.leased.id)
        return await wait(attempt)

    monkeypatch.setattr(scene.work, "invoke", invoke)
    variable.set("of whoever makes the turn")
    await scene.begin("first")
    await scene.begin("second")
    await scene.end("first")
    await scene.begin("third")

    assert seen == ["unset"] * 3
    assert variable.get() == "of whoever makes the turn"
