"""Work that a cancelled task still finishes."""

from __future__ import annotations

import asyncio

import pytest

from everloop.resources.patience import finish, to_the_end


async def test_work_is_finished_when_who_waits_is_cancelled() -> None:
    going = asyncio.Event()

    async def work() -> int:
        await going.wait()
        return 7

    task = asyncio.create_task(to_the_end(work()))
    await asyncio.sleep(0)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    going.set()

    assert await task == (7, True)


async def test_without_a_cancellation_nothing_is_said_of_one() -> None:
    async def work() -> int:
        return 7

    assert await to_the_end(work()) == (7, False)
    assert await finish(work()) == 7


async def test_the_cancellation_is_raised_after_the_work() -> None:
    log: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0)
        log.append("done")

    task = asyncio.create_task(finish(work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert log == ["done"]


async def test_the_error_of_the_work_goes_before_the_cancellation() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    task = asyncio.create_task(finish(work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(KeyError):
        await task


async def test_work_that_outlasts_its_grace_is_cancelled_too() -> None:
    log: list[str] = []

    async def work() -> None:
        for _ in range(2):  # it may need to be told twice
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                log.append("cancelled")
        raise asyncio.CancelledError

    task = asyncio.create_task(to_the_end(work(), grace=0.01))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert log == ["cancelled", "cancelled"]
