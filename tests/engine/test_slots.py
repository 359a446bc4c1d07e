"""Slots: trees finish at any concurrency, and suspended bodies do not pile up."""

from __future__ import annotations

import asyncio

import everloop
from everloop import App
from everloop.engine.slots import SUSPENDED_PER_SLOT, Slots
from tests.engine.conftest import worker_of


async def test_a_tree_of_depth_50_finishes_at_concurrency_1(app: App) -> None:
    @app.task
    async def descend(depth: int) -> int:
        return 0 if depth == 0 else 1 + await descend(depth - 1)

    async with app.worker(concurrency=1):
        assert await descend(50) == 50
        assert worker_of(app).slots.most_suspended == 50


async def test_a_bushy_tree_finishes_at_concurrency_1(app: App) -> None:
    @app.task
    async def grow(depth: int) -> int:
        if depth == 0:
            return 1
        return sum(await asyncio.gather(*(grow(depth - 1) for _ in range(3))))

    async with app.worker(concurrency=1):
        assert await grow(5) == 3**5


async def test_ten_thousand_parents_at_concurrency_10_never_have_more_than_100_suspended(
    sqlite: str,
) -> None:
    app = App("test", sqlite)

    @app.task
    async def child(n: int) -> int:
        return n

    @app.task
    async def parent(n: int) -> int:
        return await child(n)

    async with app.worker(concurrency=10):
        tasks = await app.submit_many(parent(n) for n in range(10_000))
        assert sum(await asyncio.gather(*tasks)) == sum(range(10_000))
        slots = worker_of(app).slots
        assert 0 < slots.most_suspended <= 100
        assert (slots.running, slots.suspended) == (0, 0)


async def test_parents_whose_children_are_far_away_stop_at_eight_per_slot(app: App) -> None:
    started = 0

    @app.task
    async def child(n: int) -> int:
        return n

    @app.task(queue="unserved")
    async def nobody(n: int) -> int:
        return n

    @app.task
    async def patient(n: int) -> int:
        nonlocal started
        started += 1
        return await child(n).options(delay=3_600)

    @app.task
    async def hopeful(n: int) -> int:
        nonlocal started
        started += 1
        return await nobody(n)

    async with app.worker(concurrency=2, queues=["default"]):
        await app.submit_many(call for n in range(50) for call in (patient(n), hopeful(n)))
        slots = worker_of(app).slots
        async with asyncio.timeout(20):
            while slots.suspended < SUSPENDED_PER_SLOT * 2:
                await asyncio.sleep(0.001)
        turns = app._sessions.current().session.turns
        seen = turns.turns
        async with asyncio.timeout(20):
            while turns.turns < seen + 3:
                turns.look()
                await asyncio.sleep(0.001)
        # A turn takes roots for every free slot at once, so the last one may go over by the slots.
        assert slots.suspended <= (SUSPENDED_PER_SLOT + 1) * 2
        assert started == slots.suspended


async def test_children_of_suspended_parents_run_although_no_roots_are_taken(app: App) -> None:
    @app.task
    async def leaf(n: int) -> int:
        return n

    @app.task
    async def blocked(n: int) -> int:
        return await leaf(n).options(delay=0.1)

    async with app.worker(concurrency=1):
        async with asyncio.timeout(20):
            assert await asyncio.gather(*(blocked(n) for n in range(30))) == list(range(30))
        assert worker_of(app).slots.most_suspended <= SUSPENDED_PER_SLOT + 1


async def test_the_order_is_priority_then_the_roots_place_then_the_deepest(app: App) -> None:
    ran: list[str] = []

    @app.task
    async def leaf(name: str) -> None:
        ran.append(name)

    @app.task
    async def branch(name: str) -> None:
        ran.append(name)
        await leaf(f"{name}.leaf")

    @app.task
    async def root(name: str) -> None:
        ran.append(name)
        await branch(f"{name}.branch")

    async with app:
        tasks = [await app.submit(root("a")), await app.submit(root("b"))]
        tasks += [await app.submit(root("urgent").options(priority=5))]
        tasks += [await app.submit(root("last").options(priority=-5))]
        async with app.worker(concurrency=1):
            await asyncio.gather(*tasks)

    def at(name: str) -> int:
        return ran.index(name)

    assert at("urgent") < at("a") < at("b") < at("last")
    # Each tree's deeper calls go before the roots behind it, and children inherit the priority.
    assert ran[0] == "urgent"
    assert at("urgent.branch.leaf") < at("a.branch") < at("b.branch")
    assert at("a.branch.leaf") < at("b.branch.leaf") < at("last.branch")


async def test_a_body_that_waits_for_nothing_of_ours_keeps_its_slot(app: App) -> None:
    most = running = 0

    @app.task
    async def work() -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    async with app.worker(concurrency=3):
        await asyncio.gather(*(work() for _ in range(50)))
    assert most == 3


async def test_a_body_keeps_its_slot_back_at_once_when_its_last_child_has_ended(app: App) -> None:
    seen: list[tuple[int, int]] = []

    @app.task
    async def leaf(n: int) -> int:
        return n

    @app.task
    async def parent() -> int:
        first, second = app.create_task(leaf(1)), app.create_task(leaf(2))
        total = await first + await second
        slots = worker_of(app).slots
        seen.append((slots.running, slots.suspended))
        return total + everloop.current().attempt

    async with app.worker(concurrency=1):
        assert await parent() == 4
    assert seen == [(1, 0)]


def test_counts_of_slots() -> None:
    slots = Slots(2)
    slots.start()
    slots.start()
    assert slots.room == 0
    slots.suspend()
    slots.start()  # another took its place
    slots.resume()  # and it is back: one more than there are slots
    assert (slots.running, slots.room, slots.most_suspended) == (3, 0, 1)
    slots.end()
    assert slots.room == 0
    slots.end()
    assert slots.room == 1
