"""Keys and ids: what is the same call, and what becomes of the second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import pytest

from everloop import App, IdConflict, Key, KeyConflict, LeaseLost, Task, TaskFunction
from everloop._core.ids import new_id
from everloop._core.records import Ended
from tests.engine.conftest import worker_of
from tests.helpers.waiting import until

Among = Literal["live", "done", "ever"]
AMONG: list[Among] = ["live", "done", "ever"]
EXISTING = ["scheduled", "ready", "leased", "succeeded", "failed", "cancelled", "expired"]


class Scene:
    """A function whose calls end as they are told, and calls of it in any state."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.gate = asyncio.Event()
        self.began: list[int] = []

        @app.task
        async def work(n: int, end: str = "") -> int:
            self.began.append(n)
            if end == "failed":
                raise ValueError("bad luck")
            if end == "cancelled":
                raise asyncio.CancelledError
            if end == "leased":
                await self.gate.wait()
            return n

        @app.task(queue="unserved")
        async def other(n: int) -> int:
            return n

        self.work: TaskFunction[..., int] = work
        self.other: TaskFunction[[int], int] = other

    async def existing(self, state: str, key: Key) -> Task[int]:
        """Return a call in that state, which has the key."""
        call = self.work(1, state).options(key=key)
        if state in ("scheduled", "expired"):
            call = call.options(delay=3_600)
        if state == "expired":
            call = call.options(expires=0)
        if state == "ready":
            call = call.options(queue="unserved")
        task = await self.app.submit(call)
        if state == "leased":
            await until(lambda: self.began == [1])
        elif state not in ("scheduled", "ready"):
            await asyncio.wait([task], timeout=20)
        await task.refresh()
        assert task.state == state
        return task


def stands(state: str, among: Among) -> bool:
    """Whether a call in this state stands in the way, as the contract says."""
    live = state in ("scheduled", "ready", "leased")
    return live or among == "ever" or (among == "done" and state == "succeeded")


@pytest.mark.parametrize("among", AMONG)
@pytest.mark.parametrize("state", EXISTING)
async def test_a_join_gives_the_existing_task_or_a_new_one(app: App, state: str, among: Among) -> None:
    scene = Scene(app)
    async with app.worker(queues=["default"]):
        first = await scene.existing(state, Key("k", among=among))
        second = await app.submit(scene.work(2), key=Key("k", among=among))

        assert (second.id == first.id) is stands(state, among)
        scene.gate.set()
        if second.id != first.id:
            assert await second == 2
        elif state in ("leased", "succeeded"):
            assert await second == 1, "the value of the call that was there, whatever the arguments"


@pytest.mark.parametrize("among", AMONG)
@pytest.mark.parametrize("state", EXISTING)
async def test_raise_refuses_what_a_join_would_join(app: App, state: str, among: Among) -> None:
    scene = Scene(app)
    key = Key("k", among=among, on_conflict="raise")
    async with app.worker(queues=["default"]):
        first = await scene.existing(state, key)
        if stands(state, among):
            with pytest.raises(KeyConflict, match=f"a call of 'work' with this key exists: task {first.id}"):
                await app.submit(scene.work(2), key=key)
        else:
            assert await (await app.submit(scene.work(2), key=key)) == 2
        assert sum((await app.counts()).values()) == 2 - stands(state, among)
        scene.gate.set()


@pytest.mark.parametrize("among", AMONG)
@pytest.mark.parametrize("state", EXISTING)
async def test_replace_cancels_what_is_live_and_lets_what_is_final_be(
    app: App, state: str, among: Among
) -> None:
    scene = Scene(app)
    key = Key("k", among=among, on_conflict="replace")
    async with app.worker(queues=["default"]):
        first = await scene.existing(state, key)
        second = await app.submit(scene.work(2), key=key)
        assert second.id != first.id
        assert await second == 2
        await asyncio.wait([first], timeout=20)
        await first.refresh()

    live = state in ("scheduled", "ready", "leased")
    assert first.state == ("cancelled" if live else state)


async def test_a_text_is_a_key_among_the_live_that_joins(app: App) -> None:
    scene = Scene(app)
    async with app.worker(queues=["default"]):
        first = await app.submit(scene.work(1, "leased"), key="k")
        assert (await app.submit(scene.work(2), key="k")).id == first.id
        scene.gate.set()
        assert await first == 1
        assert (await app.submit(scene.work(2), key="k")).id != first.id


async def test_a_key_belongs_to_its_app_and_function(sqlite: str) -> None:
    app, neighbour = App("test", sqlite, embed=False), App("neighbour", sqlite, embed=False)

    async def one() -> None: ...
    async def two() -> None: ...

    async with app, neighbour:
        tasks = [
            await app.submit(app.task(one)(), key="k"),
            await app.submit(app.task(two)(), key="k"),
            await neighbour.submit(neighbour.task(one)(), key="k"),
            await neighbour.submit(neighbour.task(two)(), key="other"),
        ]

    assert len({task.id for task in tasks}) == 4


async def test_of_many_at_once_with_one_key_one_is_added(app: App) -> None:
    scene = Scene(app)
    async with app.worker(queues=["default"]):
        values = await asyncio.gather(*(scene.work(n).options(key="k") for n in range(50)))
        joined = await app.submit_many((scene.work(n, "leased") for n in range(50, 100)), key="k")
        assert len({task.id for task in joined}) == 1
        scene.gate.set()
        await asyncio.gather(*joined)

    assert len(set(values)) <= len(scene.began) <= 50


async def test_in_submit_many_a_conflict_fails_only_its_own_task(app: App) -> None:
    scene = Scene(app)
    key = Key("k", on_conflict="raise")
    async with app.worker(queues=["default"]):
        await app.submit(scene.other(0), key=key)
        tasks = await app.submit_many([scene.work(1), scene.other(2).options(key=key), scene.work(3)])
        assert isinstance(tasks[1].exception(), KeyConflict)
        assert [await tasks[0], await tasks[2]] == [1, 3]


async def test_keyed_children_are_joined_across_parents(app: App) -> None:
    scene = Scene(app)

    @app.task
    async def parent(n: int) -> int:
        return await scene.work(n, "leased").options(key=Key("child", among="done"))

    async with app.worker(queues=["default"]):
        parents = [asyncio.ensure_future(parent(n)) for n in range(5)]
        await until(lambda: len(scene.began) == 1)
        scene.gate.set()
        values = await asyncio.gather(*parents)

    assert len(set(values)) == 1
    assert scene.began == values[:1]


async def test_keyed_calls_that_a_body_leaves_behind_end_it_once(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(app)
    left: list[asyncio.Task[None]] = []

    @app.task
    async def leave(name: str) -> None:
        async def go_on() -> None:
            for n in range(4):
                await app.submit(scene.work(n), key=f"{name} {n}", delay=3_600)

        left.append(asyncio.create_task(go_on()))
        await asyncio.sleep(0)  # the first is on its way

    async with app.worker(concurrency=3):
        await asyncio.gather(*(leave(str(n)) for n in range(10)))
        ends = await asyncio.gather(*left, return_exceptions=True)
        assert {type(end) for end in ends} <= {
            type(None),
            LeaseLost,
        }  # nobody adds under a lease that is over
        assert worker_of(app).room == 3
        assert (await app.counts())["scheduled"] >= 10
    assert "came too late" not in caplog.text


async def test_a_keyed_call_whose_body_ended_without_awaiting_it_is_stored(app: App) -> None:
    scene = Scene(app)

    @app.task
    async def parent() -> str:
        return (await app.submit(scene.work(1), key="k")).id

    @app.task
    async def hasty() -> None:
        app.create_task(scene.work(2).options(key="other"))

    async with app.worker(queues=["default"]):
        assert await (await app.get_task(await parent())) == 1
        await hasty()
        assert len(await app.tasks(name="work")) == 2


# -- ids ----------------------------------------------------------------------------------------------------


async def test_the_same_id_with_the_same_arguments_is_the_same_call(app: App) -> None:
    scene = Scene(app)
    id = new_id()
    async with app.worker(queues=["default"]):
        first = await app.submit(scene.work(1), id=id)
        second = await app.submit(scene.work(1), id=id.upper())
        both = await app.submit_many([scene.work(1).options(id=id), scene.work(1).options(id=id)])
        assert await asyncio.gather(first, second, *both) == [1] * 4
        assert await (await app.submit(scene.work(1), id=id)) == 1, "also when it has ended"
        assert {first.id, second.id, *(task.id for task in both)} == {id}

    assert scene.began == [1]


async def test_an_end_that_comes_before_the_answer_is_only_that_of_the_same_call(app: App) -> None:
    scene = Scene(app)
    async with app.worker(queues=["default"]):
        first = await app.submit(scene.work(1))
        assert await first == 1
        session = app._sessions.current().session
        (stored,) = await session.store.get([first.id])
        assert stored is not None
        end = Ended(stored.id, stored.state, stored.value, stored.error, stored.attempt)
        # Told while both additions wait for their turn, as when the end of the first is on its way here.
        other, same = (app.create_task(scene.work(n).options(id=first.id)) for n in (2, 1))
        session._ended([end])
        assert not other.done()
        with pytest.raises(IdConflict, match=f"the id '{first.id}' belongs to another call"):
            await other
        assert await same == 1
        key = app.create_task(scene.work(1).options(id=first.id, key="k"))  # its answer comes by itself
        session._ended([end])
        assert await key == 1
    assert scene.began == [1]


@pytest.mark.parametrize("finished", [False, True])
async def test_an_id_with_other_arguments_or_another_function_is_refused(app: App, finished: bool) -> None:
    scene = Scene(app)
    id = new_id()
    wrong: list[Callable[[], Any]] = [lambda: scene.work(2), lambda: scene.other(1)]
    async with app.worker(queues=["default"]):
        first = await app.submit(scene.work(1, "" if finished else "leased"), id=id)
        if finished:
            await first
        for make in wrong:
            with pytest.raises(IdConflict, match=f"the id '{id}' belongs to another call"):
                await app.submit(make(), id=id)
            with pytest.raises(IdConflict):
                await make().options(id=id)
        good, bad = await app.submit_many([scene.work(7), scene.work(2).options(id=id)])
        assert isinstance(bad.exception(), IdConflict)
        assert await good == 7
        assert (await app.counts())["ready"] == 0
        scene.gate.set()
        assert await first == 1


async def test_a_call_has_its_id_from_birth_and_keeps_it(app: App) -> None:
    scene = Scene(app)
    call = scene.work(1)
    id = call.id
    async with app.worker(queues=["default"]):
        task = await app.submit(call.options(priority=3), tags=["x"])

    assert task.id == id
