"""A parent that runs again uses the children of its earlier runs."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

import everloop
from everloop import App, RetryAfter
from tests.engine.conftest import until_counted, worker_of
from tests.helpers.waiting import until


def first_time() -> bool:
    return everloop.current().attempt == 1


async def test_a_succeeded_child_gives_its_value_again(app: App) -> None:
    ran: Counter[int] = Counter()

    @app.task
    async def child(n: int) -> int:
        ran[n] += 1
        return 10 * n

    @app.task(retries=1)
    async def parent() -> list[int]:
        values = [await child(1), await child(2), await child(1)]  # two equal ones are two
        if first_time():
            raise ValueError("once more")
        return values

    async with app.worker():
        assert await parent().options(retries=everloop.Retry(1, delay=0)) == [10, 20, 10]
    assert ran == {1: 2, 2: 1}


async def test_the_order_of_equal_children_is_what_tells_them_apart(app: App) -> None:
    ran = 0

    @app.task
    async def draw() -> int:
        nonlocal ran
        ran += 1
        return ran

    @app.task(retries=everloop.Retry(1, delay=0))
    async def parent() -> list[int]:
        drawn = [await draw() for _ in range(3)]
        if first_time():
            raise ValueError(f"drew {drawn}")
        return [*drawn, await draw()]

    async with app.worker():
        assert await parent() == [1, 2, 3, 4]


async def test_a_live_child_is_attached_to_again(app: App) -> None:
    ran = 0
    gate = asyncio.Event()

    @app.task
    async def child() -> str:
        nonlocal ran
        ran += 1
        await gate.wait()
        return "kept"

    runs = 0

    @app.task(retries=everloop.Retry(1, delay=0))
    async def parent() -> str:
        nonlocal runs
        runs += 1
        if runs == 1:
            task = app.create_task(child())
            await task.stored()
            await until(lambda: ran == 1)
            raise RetryAfter(0)
        return await child()

    async with app.worker():
        result = asyncio.ensure_future(parent())
        await until(lambda: runs == 2)
        gate.set()
        assert await result == "kept"
    assert ran == 1


async def test_a_child_that_an_earlier_run_cancelled_is_run_anew_while_it_still_stops(store: str) -> None:
    app = App("test", store, cancel_wait=0.01)
    ran = 0
    gate, stopping = asyncio.Event(), asyncio.Event()

    @app.task
    async def child() -> str:
        nonlocal ran
        ran += 1
        if ran == 1:
            try:
                await asyncio.Event().wait()
            finally:
                stopping.set()
                await gate.wait()
        return f"run {ran}"

    @app.task(retries=everloop.Retry(1, delay=0))
    async def parent() -> str:
        if not first_time():
            return await child()
        task = app.create_task(child())
        await until(lambda: ran == 1)
        task.cancel()
        await stopping.wait()
        raise ValueError("once more")

    async with app.worker():
        assert await parent() == "run 2"
        gate.set()
        await until_counted(app, "cancelled", 1)
        assert (await app.counts())["succeeded"] == 2


@pytest.mark.parametrize("end", ["failed", "cancelled", "expired"])
async def test_a_child_that_ended_without_a_value_has_a_new_generation(app: App, end: str) -> None:
    ran = 0

    @app.task
    async def child() -> int:
        nonlocal ran
        ran += 1
        if ran == 1 and end == "failed":
            raise ValueError("bad luck")
        if ran == 1 and end == "cancelled":
            raise asyncio.CancelledError
        return ran

    runs = 0

    @app.task(retries=everloop.Retry(1, delay=0))
    async def parent() -> int:
        nonlocal runs
        runs += 1
        call = child()
        if runs == 1 and end == "expired":
            call = call.options(delay=60, expires=0)
        try:
            return await call
        except (Exception, asyncio.CancelledError) as error:
            raise ValueError("once more") from error

    async with app.worker():
        task = await app.submit(parent())
        assert await task == (1 if end == "expired" else 2)
        assert runs == 2
        children = await app.tasks(name="child")
        assert [child.state for child in children] == ["succeeded", end]


async def test_a_fresh_child_is_never_used_again(app: App) -> None:
    ran = 0

    @app.task(fresh=True)
    async def token() -> int:
        nonlocal ran
        ran += 1
        return ran

    @app.task(retries=everloop.Retry(1, delay=0))
    async def parent() -> int:
        got = await token()
        if first_time():
            raise ValueError("once more")
        return got

    async with app.worker():
        assert await parent() == 2


async def test_owned_children_that_the_last_run_did_not_ask_for_are_cancelled_with_its_end(app: App) -> None:
    cancelled: list[int] = []
    begun: list[int] = []

    @app.task
    async def child(n: int) -> int:
        begun.append(n)
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            cancelled.append(n)
            raise
        return n

    @app.task(retries=everloop.Retry(1, delay=0))
    async def parent() -> str:
        if first_time():
            running, later = app.create_task(child(1)), app.create_task(child(2).options(delay=60))
            await asyncio.gather(running.stored(), later.stored())
            await until(lambda: begun == [1])
            raise ValueError("once more")
        again = app.create_task(child(3))
        await again.stored()
        await until(lambda: 3 in begun)
        return "done"  # without having asked for 1 and 2; 3 goes on

    async with app.worker():
        assert await parent() == "done"
        await until_counted(app, "cancelled", 2)
        assert cancelled == [1]
        (left,) = await app.tasks(name="child", state="leased")
        await app.cancel(left.id)
        with pytest.raises(asyncio.CancelledError):
            await left
    assert cancelled == [1, 3]


async def test_a_detached_child_too_is_used_again_and_outlives_its_parent(app: App) -> None:
    ran = 0
    gate = asyncio.Event()

    @app.task
    async def child() -> str:
        nonlocal ran
        ran += 1
        await gate.wait()
        return "done"

    @app.task(retries=everloop.Retry(1, delay=0))
    async def parent() -> str:
        task = await app.submit(child())
        if first_time():
            raise ValueError("once more")
        return task.id

    async with app.worker():
        id = await parent()
        gate.set()
        assert await (await app.get_task(id)) == "done"
        assert (await app.counts())["succeeded"] == 2
    assert ran == 1


async def test_a_drain_suspends_nobody_for_ever_and_the_next_worker_goes_on(app: App) -> None:
    began: list[int] = []
    ended: list[int] = []
    gate = asyncio.Event()

    @app.task
    async def leaf(n: int) -> int:
        began.append(n)
        if n % 2:
            await gate.wait()
        ended.append(n)
        return n

    @app.task
    async def tree() -> int:
        return sum(await asyncio.gather(*(leaf(n) for n in range(6))))

    async with app:
        task = await app.submit(tree())
        async with app.worker():
            await until(lambda: len(began) == 6 and len(ended) == 3)
        counts = await app.counts()
        assert (counts["leased"], counts["cancelled"], counts["failed"]) == (0, 0, 0)
        gate.set()
        async with app.worker():
            assert await task == sum(range(6))
            assert worker_of(app).slots.running == 0
    assert sorted(ended) == list(range(6))
    assert Counter(began) == {0: 1, 1: 2, 2: 1, 3: 2, 4: 1, 5: 2}
    assert task.attempts == 1
