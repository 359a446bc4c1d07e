"""Everloop in an ASGI server: Starlette, FastAPI, and what else speaks ASGI.

`lifespan` opens the app with a Starlette or FastAPI site and closes it after the site's last request. A
visitor who goes away cancels no call. FastAPI's dependencies are in `everloop.fastapi`.

This module imports no framework.

Example:
    ```python
    import asyncio
    import everloop.asgi
    import httpx
    from everloop import App
    from fastapi import FastAPI

    app = App("shop", "memory://")
    api = FastAPI(lifespan=everloop.asgi.lifespan(app, worker=True))

    @app.task
    async def price(name: str) -> int:
        return len(name)

    @api.get("/prices/{name}")
    async def show(name: str) -> int:
        return await price(name)

    async def main() -> None:
        here = httpx.ASGITransport(api)
        async with api.router.lifespan_context(api), httpx.AsyncClient(transport=here) as visitor:
            print((await visitor.get("http://shop/prices/tea")).json())

    asyncio.run(main())
    ```
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from types import FrameType
from typing import Any

from everloop._adapters import opening
from everloop._app import App
from everloop._core.policy import Delay
from everloop.engine.visits import VISIT, visit

__all__ = ["Visits", "lifespan"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def lifespan(
    app: App,
    inner: Lifespan | None = None,
    /,
    *,
    worker: bool = False,
    concurrency: int | None = None,
    queues: Sequence[str] | None = None,
    grace: Delay | None = None,
) -> Lifespan:
    """Make the `lifespan=` of a Starlette or FastAPI site: it opens the app, and then yours.

    The app is closed after the last request, and after what `inner` has opened. A request that is given up
    (its client went away in the middle of a stream, or the server stops) cancels no call: the waiting ends,
    the work goes on.

    Args:
        app: The Everloop app, opened as a client.
        inner: The site's own lifespan; what it yields is the site's state, as without Everloop.
        worker: Whether to run a worker in the server's process, too.
        concurrency: How many bodies that worker runs at once; 100 by default.
        queues: Which queues it serves; by default those that the functions name, and "default".
        grace: Seconds that its running bodies get to finish when the server stops; 0 by default.

    Raises:
        OptionError: An option is out of range, or is one of a worker that was not asked for.
    """
    open_ = opening(
        app, "everloop.asgi.lifespan()", worker=worker, concurrency=concurrency, queues=queues, grace=grace
    )

    @asynccontextmanager
    async def opened(site: Any) -> AsyncGenerator[Any]:
        async with open_():
            # Starlette has built its middlewares by now. Visits go outside of all of them: a timeout in
            # one of the user's is not the server. On other frameworks they are added by hand.
            stack: ASGIApp | None = getattr(site, "middleware_stack", None)
            if stack is not None:
                site.middleware_stack = Visits(stack)
            try:
                async with nullcontext() if inner is None else inner(site) as state:
                    yield state
            finally:
                if stack is not None:
                    site.middleware_stack = stack

    return opened


class Visits:
    """ASGI middleware that tells a server that gives a request up from a user's cancel.

    `lifespan` puts it around a Starlette or FastAPI site. Another ASGI application is wrapped by hand, on
    the outside of everything else: `site = Visits(site)`.

    Args:
        site: The ASGI application.
    """

    def __init__(self, site: ASGIApp) -> None:
        self.site = site

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "lifespan":
            await self.site(scope, receive, send)
            return

        async def heard() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" and _framework_listens():
                here = VISIT.get()
                if here is not None:
                    here.left = True
            return message

        async def handle() -> None:
            await self.site(scope, heard, send)

        await visit(handle())


def _framework_listens() -> bool:
    """Tell whether a response that streams asks for the disconnect, to cancel its stream then.

    A handler that asks for itself (`request.is_disconnected()`) decides for itself.
    """
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - who awaits the message stands on the stack
    while frame is not None:
        if frame.f_code.co_name.lstrip("_") == "listen_for_disconnect":
            return True
        frame = frame.f_back
    return False
