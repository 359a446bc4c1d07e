"""The heartbeat timeout, and putting a call off."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvloop

import everloop
from everloop import App, OptionError, Retry
from tests.engine.conftest import make


@pytest.fixture
async def app() -> App:
    return make("memory://")


async def test_a_body_that_gives_no_sign_of_life_is_ended(app: App) -> None:
    seen: list[str | None] = []

    @app.task(heartbeat=0.05, retries=Retry(1, delay=0))
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(everloop.current().stopping)

    async with app.worker():
        task = await app.submit(hang())
        with pytest.raises(TimeoutError, match=r"it has given no sign of life for 0\.05 s \(`heartbeat`\)"):
            await task

    assert seen == ["timeout"] * 2
    assert task.attempts == 2


async def test_signs_of_life_keep_it_going(app: App) -> None:
    @app.task(heartbeat=0.2)
    async def alive() -> str:
        for n in range(8):
            await asyncio.sleep(0.05)
            everloop.current().heartbeat() if n % 2 else everloop.current().progress(n)
        return "done"

    @app.task(heartbeat=0.2)
    def in_a_thread() -> str:
        for _ in range(8):
            time.sleep(0.05)
            everloop.current().heartbeat()
        return str(everloop.current().stopping)

    async with app.worker():
        assert await asyncio.gather(alive(), in_a_thread()) == ["done", "None"]


async def test_who_waits_for_a_child_need_not_give_any(app: App) -> None:
    @app.task
    async def child() -> str:
        await asyncio.sleep(0.2)
        return "done"

    @app.task(heartbeat=0.05)
    async def parent() -> str:
        return await child()

    @app.task(heartbeat=0.05)
    async def then_hangs() -> str:
        await child()
        return await asyncio.Event().wait() or ""

    async with app.worker():
        assert await parent() == "done"
        with pytest.raises(TimeoutError):
            await then_hangs()


def test_a_body_is_ended_on_uvloop_too() -> None:
    app = make("memory://")

    @app.task(heartbeat=0.05)
    async def hang() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.timeout(20), app.worker():
            with pytest.raises(TimeoutError, match="no sign of life"):
                await hang()

    uvloop.run(main())  # its timers tell other times, and its handles less


async def test_what_a_child_took_does_not_count(app: App) -> None:
    @app.task
    async def child() -> None:
        await asyncio.sleep(0.35)  # it ends between two looks at its parent

    @app.task(heartbeat=0.25)
    async def parent() -> str:
        await child()
        await asyncio.sleep(0.2)  # past the next of them
        return "done"

    async with app.worker():
        assert await parent() == "done"


async def test_a_loop_that_is_held_up_by_another_is_no_missing_sign(app: App) -> None:
    @app.task(heartbeat=0.05)
    async def alive() -> str:
        for _ in range(20):
            await asyncio.sleep(0.02)
            everloop.current().heartbeat()
        return "done"

    @app.task
    async def blocks() -> None:
        for _ in range(2):
            await asyncio.sleep(0.05)
            time.sleep(0.2)  # the mistake that this is about

    async with app.worker():
        assert await asyncio.gather(alive(), blocks()) == ["done", None]


async def test_a_call_can_ask_for_another_heartbeat_or_none(app: App) -> None:
    @app.task(heartbeat=0.02)
    async def nap() -> str:
        await asyncio.sleep(0.1)
        return "slept"

    async with app.worker():
        with pytest.raises(TimeoutError):
            await nap()
        assert await nap().options(heartbeat=None) == "slept"
        assert await nap.options(heartbeat=5)() == "slept"
    with pytest.raises(OptionError, match=r"`heartbeat` is 0 s; it may be 0\.001 s"):
        nap.options(heartbeat=0)


async def test_a_call_is_put_off_at_no_cost(app: App) -> None:
    runs: list[int] = []

    @app.task
    async def later() -> int:
        current = everloop.current()
        runs.append(current.attempt)
        if len(runs) < 3:
            current.snooze(0.01)
        return current.attempt

    async with app.worker():
        task = await app.submit(later())
        assert await task == 1
    assert runs == [1, 1, 1]
    assert task.attempts == 1
