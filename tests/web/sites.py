"""The same handler on each framework, served for real on loopback, and visitors who leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from aiohttp import web
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route

import everloop.aiohttp
import everloop.asgi
from everloop import App
from tests.helpers.waiting import until

#: What answers a request, whatever the framework.
Handle = Callable[[], Awaitable[str]]


@dataclass(frozen=True)
class Site:
    """Where it is served."""

    host: str
    port: int

    @asynccontextmanager
    async def visitor(self, request: str = "GET /") -> AsyncGenerator[asyncio.StreamReader]:
        """Ask, and go away at the end of the block without a word."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(f"{request} HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n".encode())
        try:
            yield reader
        finally:
            writer.close()
            await writer.wait_closed()

    async def ask(self, request: str = "GET /") -> tuple[int, str]:
        """Ask, and return the status and the body."""
        async with self.visitor(request) as reader:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = head.partition("content-length: ")[2].split("\r\n")[0]
            return int(head.split()[1]), (await reader.readexactly(int(length or 0))).decode()


@asynccontextmanager
async def on_aiohttp(
    site: web.Application, *, handler_cancellation: bool = False, shutdown_timeout: float = 10
) -> AsyncGenerator[Site]:
    """Serve an aiohttp application."""
    runner = web.AppRunner(
        site, handler_cancellation=handler_cancellation, shutdown_timeout=shutdown_timeout, access_log=None
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield Site(host, port)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def on_uvicorn(site: Any, *, shutdown_timeout: float | None = None) -> AsyncGenerator[Site]:
    """Serve an ASGI application."""
    config = uvicorn.Config(
        site,
        port=0,
        lifespan="on",
        log_config=None,
        timeout_graceful_shutdown=shutdown_timeout,  # type: ignore[arg-type]  # seconds, whole or not
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or serving.done(), what="uvicorn serves")
        assert server.started, "the site did not start"
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield Site(host, port)
    finally:
        server.should_exit = True
        await serving


# -- one handler on each framework ---------------------------------------------------------------------------


def aiohttp_site(app: App, handle: Handle, **options: Any) -> web.Application:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=await handle())

    site = web.Application()
    everloop.aiohttp.setup(site, app, **options)
    site.router.add_get("/", answer)
    return site


def starlette_site(app: App, handle: Handle, **options: Any) -> Starlette:
    async def answer(_: Request) -> PlainTextResponse:
        return PlainTextResponse(await handle())

    return Starlette(routes=[Route("/", answer)], lifespan=everloop.asgi.lifespan(app, **options))


def streaming_site(app: App, handle: Handle, **options: Any) -> Starlette:
    async def answer(_: Request) -> StreamingResponse:
        async def stream() -> AsyncIterator[str]:
            yield "it is\n"
            yield await handle()

        return StreamingResponse(stream())

    return Starlette(routes=[Route("/", answer)], lifespan=everloop.asgi.lifespan(app, **options))


def streaming_site_with_middleware(app: App, handle: Handle, **options: Any) -> FastAPI:
    """Be FastAPI with `@site.middleware("http")`, whose request is another than the server's."""
    site = FastAPI(lifespan=everloop.asgi.lifespan(app, **options))

    @site.middleware("http")
    async def through(
        request: Request, call_next: Callable[[Request], Awaitable[StarletteResponse]]
    ) -> StarletteResponse:
        return await call_next(request)

    @site.get("/")
    async def answer() -> StreamingResponse:
        async def stream() -> AsyncIterator[str]:
            yield "it is\n"
            yield await handle()

        return StreamingResponse(stream())

    return site


def fastapi_site(app: App, handle: Handle, **options: Any) -> FastAPI:
    site = FastAPI(lifespan=everloop.asgi.lifespan(app, **options))
    site.get("/")(handle)
    return site


ASGI: dict[str, Callable[..., Any]] = {
    "starlette": starlette_site,
    "fastapi": fastapi_site,
    "a stream": streaming_site,
    "a stream behind a middleware": streaming_site_with_middleware,
}


@asynccontextmanager
async def served(
    kind: str, app: App, handle: Handle, *, shutdown_timeout: float | None = None, **options: Any
) -> AsyncGenerator[Site]:
    """Serve `handle` on one of the `KINDS`."""
    if kind.startswith("aiohttp"):
        site = aiohttp_site(app, handle, **options)
        cancels = kind == "aiohttp that cancels"
        stop = 10 if shutdown_timeout is None else shutdown_timeout
        async with on_aiohttp(site, handler_cancellation=cancels, shutdown_timeout=stop) as at:
            yield at
    else:
        async with on_uvicorn(ASGI[kind](app, handle, **options), shutdown_timeout=shutdown_timeout) as at:
            yield at


KINDS = ["aiohttp", "aiohttp that cancels", *ASGI]
#: Where the handler of a visitor who left is cancelled; elsewhere it goes on.
CANCELLING = ["aiohttp that cancels", "a stream", "a stream behind a middleware"]
