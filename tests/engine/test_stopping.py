"""Bodies that are stopped, and bodies that outlive what they were told."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing

import pytest

import everloop
from everloop import App, TaskFailed
from everloop.store.url import sqlite_path
from tests.engine.conftest import make
from tests.helpers.waiting import until


async def test_a_body_that_fails_while_it_is_unwound_is_released_and_not_failed(app: App) -> None:
    runs = 0
    gate = asyncio.Event()

    @app.task
    async def work() -> int:
        nonlocal runs
        runs += 1
        try:
            await gate.wait()
        except asyncio.CancelledError:
            raise ValueError("cleaning up went wrong") from None
        return runs

    async with app:
        task = await app.submit(work())
        async with app.worker():
            await until(lambda: runs == 1)
        await task.refresh()
        assert (task.state, task.attempts) == ("ready", 0)
        gate.set()
        async with app.worker():
            assert await task == 2


async def test_a_body_that_swallows_its_cancellation_keeps_its_result(app: App) -> None:
    began = asyncio.Event()

    @app.task
    async def stubborn() -> str:
        began.set()
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            return "done all the same"
        return "never"

    async with app:
        task = await app.submit(stubborn())
        async with app.worker():
            await began.wait()
        assert await task == "done all the same"


async def test_nothing_begins_after_the_worker_was_told_to_stop(app: App) -> None:
    began: list[int] = []

    @app.task
    async def work(n: int) -> int:
        began.append(n)
        await asyncio.sleep(0)
        return n

    async with app:
        tasks = await app.submit_many(work(n) for n in range(60))
        steps, longer = 0, 1
        while (await app.counts())["succeeded"] < 60:
            before = len(began)
            async with app.worker(concurrency=5):
                for _ in range(longer * (20 + steps % 30)):
                    await asyncio.sleep(0)
                steps += 1
            seen = len(began)
            counts = await app.counts()
            assert (counts["leased"], counts["failed"], counts["cancelled"]) == (0, 0, 0)
            assert len(began) == seen
            # On a slow disk a worker lives for many rounds of the loop before its first lease.
            longer = longer * 2 if seen == before else max(1, longer // 2)
        await asyncio.gather(*tasks)
        for task in tasks:
            await task.refresh()
        assert {task.attempts for task in tasks} == {1}


async def test_progress_from_a_thread_is_stored_at_once(app: App) -> None:
    gate = threading.Event()

    @app.task
    def count() -> int:
        everloop.current().progress(1, 3, "one")
        gate.wait(20)
        return 3

    async with app.worker():
        task = await app.submit(count())
        try:
            async with asyncio.timeout(20):
                while task.progress is None:
                    await asyncio.sleep(0.001)
                    await task.refresh()
            assert (task.progress.done, task.progress.total, task.progress.note) == (1, 3, "one")
        finally:
            gate.set()
        assert await task == 3


async def test_options_that_cannot_be_read_fail_the_call_and_no_other(sqlite: str) -> None:
    app = make(sqlite)

    @app.task
    async def work(n: int) -> int:
        return n

    async with app:
        spoilt = await app.submit(work(1).options(timeout=5))
        whole = await app.submit(work(2).options(timeout=5))
        spoil = "UPDATE ever_payloads SET policy = '{' WHERE seq = (SELECT seq FROM ever_calls WHERE id = ?)"
        with closing(sqlite3.connect(sqlite_path(sqlite), isolation_level=None)) as connection:
            assert connection.execute(spoil, (spoilt.id,)).rowcount == 1
        async with app.worker():
            with pytest.raises(TaskFailed, match="the options that were stored with the call cannot be read"):
                await spoilt
            assert await whole == 2
