"""A visit tells the server's cancellation of a handler from one of the handler's own."""

from __future__ import annotations

import asyncio

import pytest

from everloop.engine.visits import VISIT, Visit, visit


async def seen() -> Visit:
    here = VISIT.get()
    assert here is not None
    return here


async def test_what_a_handler_returns_or_raises_is_passed_on() -> None:
    async def fail() -> None:
        raise ValueError("odd")

    assert not (await visit(seen())).left
    assert VISIT.get() is None
    with pytest.raises(ValueError, match="odd"):
        await visit(fail())


async def test_a_handler_that_the_server_cancels_has_been_left_until_it_has_ended() -> None:
    began = asyncio.Event()
    told: list[tuple[bool, str]] = []
    visits: list[Visit] = []

    async def handle() -> None:
        here = await seen()
        visits.append(here)
        began.set()
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError as error:
            told.append((here.left, str(error)))
            raise

    server = asyncio.ensure_future(visit(handle()))
    await began.wait()
    assert not visits[0].left
    server.cancel("the client has left")
    with pytest.raises(asyncio.CancelledError):
        await server

    assert told == [(True, "the client has left")]
    assert not visits[0].left


async def test_a_handler_that_cancels_its_own_work_has_not_been_left() -> None:
    told: list[bool] = []

    async def handle() -> str:
        here = await seen()
        try:
            async with asyncio.timeout(0):
                await asyncio.sleep(3_600)
        except TimeoutError:
            told.append(here.left)
        return "late"

    assert await visit(handle()) == "late"
    assert told == [False]


async def test_a_handler_may_end_well_although_the_server_has_left_and_is_cancelled_too_late() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def handle() -> str:
        began.set()
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            await go_on.wait()
        return "written down"

    server = asyncio.ensure_future(visit(handle()))
    await began.wait()
    server.cancel()
    await asyncio.sleep(0)
    waited = server._fut_waiter  # type: ignore[attr-defined]  # what the server waits for
    go_on.set()

    assert await server == "written down"
    assert not waited.cancel()
