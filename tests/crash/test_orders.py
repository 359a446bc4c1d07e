"""Calls that are submitted in a user's transaction run if and only if that was committed, whoever dies."""

from __future__ import annotations

import asyncio
import random
from contextlib import ExitStack
from pathlib import Path

from tests.crash.programs.orders import Orders
from tests.crash.scene import Scene

PROGRAM = "tests.crash.programs.orders"
TARGET = f"{PROGRAM}:app"
KILLS = 4


async def test_a_process_that_dies_after_its_commit_and_before_it_wakes_anybody_loses_nothing(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack)
        worker = scene.worker(target=TARGET)
        worker.until("worker ready")
        client = scene.program("-m", PROGRAM, "die-after-commit")

        assert client.ended().code == 9
        await scene.noted("receipt", 1)
        assert Orders(scene.store).booked() == [1]
        assert set(scene.times("receipt")) == {"1"}


async def test_receipts_are_those_of_the_orders_whenever_the_shop_or_the_worker_is_killed(
    tmp_path: Path, rng: random.Random
) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack)
        orders = Orders(scene.store)
        async with orders.app:
            await orders.make_table()
            for _ in range(KILLS):
                client = scene.program("-m", PROGRAM, "book")
                worker = scene.worker(target=TARGET)
                client.until("booked 20")
                await asyncio.sleep(rng.random() / 5)
                (client if rng.random() < 0.5 else worker).kill()
                client.kill()
                worker.kill()
            scene.worker(target=TARGET)
            total = len(await orders.app.tasks(limit=10_000))
            async with asyncio.timeout(30):
                while (await orders.app.counts())["succeeded"] != total:
                    await asyncio.sleep(0.01)

            booked = orders.booked()
            assert len(booked) == total > 0
            assert {int(n) for n in scene.times("receipt")} == set(booked)
            assert not any(n % 3 == 0 for n in booked)
            assert scene.times("rolled-back")
