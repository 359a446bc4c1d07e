"""Callbacks: durable ones, which a worker runs however the call ended, and local ones, as in asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

import everloop
from everloop import App, Call, OptionError, Retry, Task, TaskExpired, TaskFunction
from everloop._core.ids import new_id
from tests.engine.conftest import until_counted
from tests.helpers.waiting import until

Told = list[tuple[Any, ...]]


class Scene:
    """A function that ends as it is told, and callbacks that note what they are given."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.told: Told = []
        self.gate = asyncio.Event()
        self.began = asyncio.Event()

        @app.task
        async def work(how: str) -> str:
            self.began.set()
            if how == "failed":
                raise ValueError("bad luck")
            if how == "leased":
                await self.gate.wait()
            return f"value of {how}"

        @app.task
        async def notify(number: int, task: Task[str], *, mark: str = "") -> None:
            result = None if task.cancelled() or task.exception() else task.result()
            self.told.append((number, task.id, task.state, result, mark))

        @app.task
        async def look(task: Task[str]) -> None:
            assert task.done()
            self.told.append((task.cancelled(), None if task.cancelled() else task.exception()))

        @app.task
        def in_a_thread(task: Task[str]) -> None:
            self.told.append((task.name, task.result(), everloop.current().name))

        self.work: TaskFunction[[str], str] = work
        self.notify: TaskFunction[..., None] = notify
        self.look: TaskFunction[..., None] = look
        self.in_a_thread: TaskFunction[..., None] = in_a_thread

    def ending(self, state: str) -> Call[str]:
        """Return a call that ends in this state, if `end` helps."""
        call = self.work("leased" if state == "cancelled while running" else state)
        if state == "expired":
            return call.options(delay=3_600, expires=0)
        return call.options(delay=3_600) if state == "cancelled" else call

    async def end(self, task: Task[str], state: str) -> None:
        if state == "cancelled while running":
            await asyncio.wait_for(self.began.wait(), 20)
        if state.startswith("cancelled"):
            assert await self.app.cancel(task.id)
        await asyncio.wait([task], timeout=20)


def final(state: str) -> str:
    return "cancelled" if state.startswith("cancelled") else state


ENDS = ["succeeded", "failed", "cancelled", "cancelled while running", "expired"]


@pytest.mark.parametrize("state", ENDS)
async def test_a_durable_callback_runs_however_the_call_ended(app: App, state: str) -> None:
    scene = Scene(app)
    async with app.worker():
        task = await app.submit(scene.ending(state), on_done=partial(scene.notify, 2))
        await scene.end(task, state)
        await until(lambda: bool(scene.told))

    result = "value of succeeded" if state == "succeeded" else None
    assert scene.told == [(2, task.id, final(state), result, "")]


@pytest.mark.parametrize("state", ENDS)
async def test_it_reads_the_exception_of_the_finished_task(app: App, state: str) -> None:
    scene = Scene(app)
    async with app.worker():
        task = await app.submit(scene.ending(state), on_done=scene.look)
        await scene.end(task, state)
        await until(lambda: bool(scene.told))

    ((cancelled, error),) = scene.told
    assert cancelled is state.startswith("cancelled")
    kinds = {"failed": ValueError, "expired": TaskExpired}
    assert isinstance(error, kinds.get(state, type(None)))


async def test_it_waits_for_its_call_and_is_listed_meanwhile(app: App) -> None:
    scene = Scene(app)
    async with app.worker():
        await app.submit(scene.work("leased"), on_done=scene.look)
        await asyncio.wait_for(scene.began.wait(), 20)
        (waiting,) = await app.tasks(state="waiting")
        assert (waiting.name, scene.told) == ("look", [])
        scene.gate.set()
        await waiting

    assert scene.told == [(False, None)]


async def test_several_callbacks_partials_in_partials_keywords_and_threads(app: App) -> None:
    scene = Scene(app)
    on_done: list[Callable[..., Any]] = [
        partial(scene.notify, 1),
        partial(partial(scene.notify, mark="a"), 2, mark="b"),
        scene.in_a_thread,
    ]
    async with app.worker():
        task = await app.submit(scene.work("succeeded").options(on_done=on_done))
        await until(lambda: len(scene.told) == 3)

    value = "value of succeeded"
    assert set(scene.told) == {
        (1, task.id, "succeeded", value, ""),
        (2, task.id, "succeeded", value, "b"),
        ("work", value, "in_a_thread"),
    }


async def test_callbacks_stand_on_the_decorator_too_and_the_later_place_wins(app: App) -> None:
    scene = Scene(app)

    @app.task(on_done=partial(scene.notify, 1))
    async def plain() -> str:
        return "done"

    async with app.worker():
        assert await plain() == "done"
        await until(lambda: len(scene.told) == 1)
        assert await plain().options(on_done=partial(scene.notify, 2)) == "done"
        await until(lambda: len(scene.told) == 2)

    assert [told[0] for told in scene.told] == [1, 2]


async def test_a_callback_may_have_callbacks_which_its_own_declaration_names(app: App) -> None:
    scene = Scene(app)

    @app.task
    async def chain(task: Task[str]) -> str:
        return (await app.submit(scene.work("succeeded"), on_done=partial(scene.notify, 9))).id

    async with app.worker():
        await app.submit(scene.work("failed"), on_done=chain)
        await until(lambda: bool(scene.told))

    assert [told[0] for told in scene.told] == [9]


async def test_a_call_that_joins_brings_its_callbacks_along(app: App) -> None:
    scene = Scene(app)
    async with app.worker():
        first = await app.submit(scene.work("leased"), key="k", on_done=partial(scene.notify, 1))
        second = await app.submit(scene.work("leased"), key="k", on_done=partial(scene.notify, 2))
        assert first.id == second.id
        scene.gate.set()
        await until(lambda: len(scene.told) == 2)

    assert sorted(told[0] for told in scene.told) == [1, 2]


async def test_what_a_worker_cannot_run_is_no_durable_callback(app: App) -> None:
    scene = Scene(app)
    async with app:
        for wrong in (print, partial(print, 1)):
            call = scene.work("succeeded")
            with pytest.raises(OptionError, match=r"`on_done` takes task functions"):
                await app.submit(call, on_done=wrong)
            call.close()
        assert sum((await app.counts()).values()) == 0


async def test_the_callback_survives_the_one_who_submitted_it(sqlite: str) -> None:
    submitting, serving = App("test", sqlite), App("test", sqlite)
    scene, declared = Scene(serving), Scene(submitting)
    async with submitting:
        await submitting.submit(declared.work("succeeded"), on_done=partial(declared.notify, 3))
    async with serving.worker():
        await until(lambda: bool(scene.told))

    assert [told[:1] + told[2:] for told in scene.told] == [(3, "succeeded", "value of succeeded", "")]
    assert declared.told == []


# -- local --------------------------------------------------------------------------------------------------


async def test_local_callbacks_get_the_finished_task_in_their_order(app: App) -> None:
    scene = Scene(app)
    seen: list[tuple[Any, ...]] = []
    variable: ContextVar[str] = ContextVar("variable", default="outer")

    def note(*args: Any) -> None:
        seen.append((*args[:-1], args[-1].result(), variable.get()))

    async with app.worker():
        task = await app.submit(scene.work("leased"))
        task.add_done_callback(partial(note, 1))
        task.add_done_callback(removed := partial(note, 2))
        token = variable.set("inner")
        task.add_done_callback(partial(note, 3))
        variable.reset(token)
        assert task.remove_done_callback(removed) == 1
        scene.gate.set()
        await task
        await until(lambda: len(seen) == 2)
        task.add_done_callback(partial(note, 4))
        assert len(seen) == 2, "soon, not at once"
        await asyncio.sleep(0)

    value = "value of leased"
    assert seen == [(1, value, "outer"), (3, value, "inner"), (4, value, "outer")]


@pytest.mark.parametrize("state", ENDS)
async def test_local_callbacks_are_called_however_the_call_ended(app: App, state: str) -> None:
    scene = Scene(app)
    seen: list[Task[str]] = []
    async with app.worker():
        task = await app.submit(scene.ending(state))
        task.add_done_callback(seen.append)
        await scene.end(task, state)
        await until(lambda: bool(seen))

    assert seen == [task]
    assert (task.state, task.cancelled()) == (final(state), state.startswith("cancelled"))


async def test_a_callback_that_failed_is_retried_with_the_same_finished_task(app: App) -> None:
    told: Told = []

    @app.task
    async def work() -> str:
        return "value"

    @app.task
    async def notify(task: Task[str]) -> None:
        told.append((task.id, task.result()))
        if len(told) == 1:
            raise OSError("no connection to the mail server")

    async with app.worker():
        task = await app.submit(work(), on_done=notify)
        await until(lambda: told)
        (callback,) = await app.tasks(name="notify")
        with pytest.raises(Exception, match="no connection to the mail server"):
            await callback
        await (await app.retry(callback.id))

    assert told == [(task.id, "value")] * 2


async def test_a_callback_runs_once_for_a_call_that_is_submitted_again(app: App) -> None:
    """By its id, and by a later run of its parent; nothing is done twice."""
    told: list[str] = []

    @app.task
    async def work(n: int) -> int:
        return n

    @app.task
    async def notify(task: Task[int]) -> None:
        told.append(task.id)

    @app.task(retries=2)
    async def parent() -> str:
        task = await app.submit(work(7), on_done=notify)
        await task
        if everloop.current().attempt < 3:
            raise ValueError("once more")
        return task.id

    async with app.worker():
        id_ = new_id()
        for _ in range(3):
            await (await app.submit(work(1), id=id_, on_done=notify))
        child = await parent().options(retries=Retry(2, delay=0))
        await until(lambda: len(told) >= 2)
        await until_counted(app, "succeeded", 5)

    assert sorted(told) == sorted([id_, child])
