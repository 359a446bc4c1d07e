"""Who cancels whom in a web server: a visitor who leaves or a server that stops cancels no payment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

import everloop.aiohttp
import everloop.asgi
from everloop import Call
from everloop.engine.visits import VISIT, visit
from tests.web.sites import (
    CANCELLING,
    KINDS,
    aiohttp_site,
    on_aiohttp,
    on_uvicorn,
    served,
    starlette_site,
    streaming_site,
)
from tests.web.till import WAYS, Till, plainly

Wait = Callable[[Call[str]], Awaitable[str]]


@pytest.fixture
async def till(tmp_path: Path) -> AsyncGenerator[Till]:
    """Serve the till from this process, whatever becomes of the site."""
    till = Till(tmp_path)
    async with till.app.worker():
        yield till


# -- the visitor leaves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", WAYS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_visitor_who_leaves_cancels_no_payment(till: Till, kind: str, wait: Wait) -> None:
    async with served(kind, till.app, till.handle(wait)) as site:
        async with site.visitor():
            await till.until("tea begins")
        if kind in CANCELLING:
            await till.until("handler: CancelledError")
            assert await till.states() == ["leased"]
        till.may_pay.set()
        await till.until_states("succeeded")

    end = "CancelledError" if kind in CANCELLING else "tea is paid"
    assert sorted(till.lines) == sorted(["tea begins", "tea is paid", f"handler: {end}"])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_visitor_who_leaves_cancels_what_is_elsewhere_neither(tmp_path: Path, kind: str) -> None:
    """The site is only a client here: its worker has another session."""
    till, elsewhere = Till(tmp_path), Till(tmp_path)
    async with elsewhere.app.worker(), served(kind, till.app, till.handle(plainly)) as site:
        async with site.visitor():
            await elsewhere.until("tea begins")
        if kind in CANCELLING:
            await till.until("handler: CancelledError")
        elsewhere.may_pay.set()
        await elsewhere.until_states("succeeded")

    assert elsewhere.lines == ["tea begins", "tea is paid"]


# -- the server stops ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", WAYS)
@pytest.mark.parametrize("kind", ["aiohttp", "starlette", "a stream"])
async def test_a_server_that_stops_cancels_no_payment(till: Till, kind: str, wait: Wait) -> None:
    async with served(kind, till.app, till.handle(wait), shutdown_timeout=0.05) as site:
        async with asyncio.timeout(20):
            _, writer = await asyncio.open_connection(site.host, site.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await till.until("tea begins")
    await till.until("handler: CancelledError")
    writer.close()
    await writer.wait_closed()

    assert await till.states() == ["leased"]
    till.may_pay.set()
    await till.until_states("succeeded")


# -- the user gives up ---------------------------------------------------------------------------------------


async def soon(call: Call[str]) -> str:
    async with asyncio.timeout(0.2):
        return await call


async def soon_with_wait_for(call: Call[str]) -> str:
    return await asyncio.wait_for(call, 0.2)


async def soon_with_anyio(call: Call[str]) -> str:
    with anyio.fail_after(0.2):
        return await call


async def soon_around_a_group(call: Call[str]) -> str:
    async with asyncio.timeout(0.2), asyncio.TaskGroup() as group:
        task = group.create_task(call)
    return task.result()


async def by_cancel(call: Call[str]) -> str:
    task = asyncio.create_task(plainly(call))
    await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.wait([task])
    raise TimeoutError


GIVE_UP = [soon, soon_with_wait_for, soon_with_anyio, soon_around_a_group, by_cancel]


@pytest.mark.parametrize("give_up", GIVE_UP)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_timeout_of_the_handler_cancels(till: Till, kind: str, give_up: Wait) -> None:
    async def handle() -> str:
        try:
            return await give_up(till.pay("tea"))
        except TimeoutError:
            return "too slow"

    async with served(kind, till.app, handle) as site, site.visitor() as reader:
        answer = await reader.readuntil(b"too slow")
        assert b" 200 OK" in answer

    await till.until_states("cancelled")
    assert till.lines == ["tea begins", "tea stops: cancelled"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in CANCELLING])
async def test_a_handler_that_goes_on_may_still_give_up(till: Till, kind: str) -> None:
    """The visitor has left, and nothing has cancelled the handler: its timeout is its own."""
    gone = asyncio.Event()

    async def give_up(call: Call[str]) -> str:
        task = till.app.create_task(call)
        await gone.wait()
        async with asyncio.timeout(0.05):
            return await task

    async with served(kind, till.app, till.handle(give_up)) as site:
        async with site.visitor():
            await till.until("tea begins")
        gone.set()
        await till.until("handler: TimeoutError")
    await till.until_states("cancelled")


async def test_a_handler_that_asks_for_the_disconnect_decides_itself(till: Till) -> None:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def answer(request: Request) -> Response:
        task = till.app.create_task(till.pay("tea"))
        while (await request.receive())["type"] != "http.disconnect":
            pass
        task.cancel("nobody wants it any more")
        await asyncio.wait([task])
        return Response()

    site = Starlette(routes=[Route("/", answer)], lifespan=everloop.asgi.lifespan(till.app))
    async with on_uvicorn(site) as at, at.visitor():
        await till.until("tea begins")
    await till.until_states("cancelled")


async def test_a_timeout_in_a_middleware_of_aiohttp_is_the_users(till: Till) -> None:
    @web.middleware
    async def patient(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        async with asyncio.timeout(0.2):
            return await handler(request)

    site = aiohttp_site(till.app, till.handle(plainly))
    site.middlewares.append(patient)
    async with on_aiohttp(site) as at:
        assert (await at.ask())[0] == 504
    await till.until_states("cancelled")


@pytest.mark.parametrize("make", [starlette_site, streaming_site])
async def test_a_timeout_in_a_middleware_of_starlette_is_the_users(
    till: Till, make: Callable[..., Any]
) -> None:
    class Patient:
        def __init__(self, app: everloop.asgi.ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await self.app(scope, receive, send)
                return
            try:
                async with asyncio.timeout(0.2):
                    await self.app(scope, receive, send)
            except TimeoutError:
                till.lines.append("the middleware gave up")

    site = make(till.app, till.handle(plainly))
    site.add_middleware(Patient)
    async with on_uvicorn(site) as at, at.visitor():
        await till.until("the middleware gave up")
    await till.until_states("cancelled")


# -- a visit by itself ---------------------------------------------------------------------------------------


async def test_a_visit_returns_what_the_handler_returns() -> None:
    async def handle() -> str:
        assert VISIT.get() is not None
        return "done"

    assert await visit(handle()) == "done"
    assert VISIT.get() is None


async def test_a_visit_raises_what_the_handler_raises() -> None:
    async def handle() -> None:
        raise LookupError("no such tea")

    with pytest.raises(LookupError, match="no such tea"):
        await visit(handle())


async def test_a_cancelled_visit_ends_with_its_handler() -> None:
    began, may_end, lines = asyncio.Event(), asyncio.Event(), list[str]()

    async def handle() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            here = VISIT.get()
            assert here is not None
            lines.append(f"left: {here.left}")
            await may_end.wait()
            lines.append("cleaned up")

    visiting = asyncio.create_task(visit(handle()))
    await began.wait()
    visiting.cancel("the server stops")
    await asyncio.wait([visiting], timeout=0.01)
    assert not visiting.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await visiting

    assert lines == ["left: True", "cleaned up"]


async def test_a_handler_that_makes_something_of_its_cancellation_answers() -> None:
    began = asyncio.Event()

    async def handle() -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "all the same"
        return "never"

    visiting = asyncio.create_task(visit(handle()))
    await began.wait()
    visiting.cancel()

    assert await visiting == "all the same"


async def test_what_a_handler_leaves_behind_is_cancelled_by_users_only(till: Till) -> None:
    """The request is over, given up or not: a later cancellation of its background task is a user's."""
    began = asyncio.Event()
    behind: list[asyncio.Task[str]] = []

    async def handle() -> None:
        behind.append(asyncio.create_task(plainly(till.pay("tea"))))
        began.set()
        await asyncio.Event().wait()

    visiting = asyncio.create_task(visit(handle()))
    await began.wait()
    await till.until("tea begins")
    visiting.cancel()
    await asyncio.wait([visiting])
    behind[0].cancel()
    await asyncio.wait(behind)

    await till.until_states("cancelled")
