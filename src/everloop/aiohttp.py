"""Everloop in an aiohttp server.

`setup` opens the app with the site and closes it after the site's last request. `inject` gives handlers
what `Use(...)` names, as task functions get it. A visitor who goes away cancels no call.

Example:
    ```python
    import asyncio
    import everloop.aiohttp
    from aiohttp import web
    from aiohttp.test_utils import TestClient, TestServer
    from everloop import App, Use
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import AsyncConnection

    app = App("shop", "memory://")
    db = app.database("sqlite:///orders.db")

    @everloop.aiohttp.inject
    async def order(request: web.Request, conn: AsyncConnection = Use(db.transaction)) -> web.Response:
        await conn.execute(text("create table if not exists orders (tea text)"))
        await conn.execute(text("insert into orders values ('green')"))
        return web.Response(status=201)

    site = web.Application()
    everloop.aiohttp.setup(site, app)
    site.router.add_post("/orders", order)

    async def main() -> None:
        async with TestClient(TestServer(site)) as visitor:
            print((await visitor.post("/orders")).status)

    asyncio.run(main())
    ```
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, TypeVar

from aiohttp import web

from everloop._adapters import NotKept, check_status, opening
from everloop._app import App
from everloop._core.errors import FunctionError, UsageError
from everloop._core.policy import Delay
from everloop.engine.visits import visit
from everloop.resources.injection import Scopes, injected

__all__ = ["EVERLOOP", "inject", "setup"]

A = TypeVar("A", bound="web.Request | web.View")

#: Where `setup` puts the app: `request.config_dict[EVERLOOP]` in a handler, of a sub-application too.
EVERLOOP = web.AppKey("EVERLOOP", App)


def setup(
    site: web.Application,
    app: App,
    *,
    key: web.AppKey[App] = EVERLOOP,
    worker: bool = False,
    concurrency: int | None = None,
    queues: Sequence[str] | None = None,
    grace: Delay | None = None,
) -> None:
    """Open an app with an aiohttp application, and close it with that, after the last request.

    Call it first, on the root application: what is added to `cleanup_ctx` later is closed before the app
    is. A request that the server gives up (its client went away and `handler_cancellation` is on, or the
    server stops) cancels no call: the waiting ends, the work goes on.

    Args:
        site: The aiohttp application.
        app: The Everloop app, opened as a client.
        key: Where handlers find it; another key for a second app.
        worker: Whether to run a worker in the server's process, too.
        concurrency: How many bodies that worker runs at once; 100 by default.
        queues: Which queues it serves; by default those that the functions name, and "default".
        grace: Seconds that its running bodies get to finish when the server stops; 0 by default.

    Raises:
        UsageError: The site has an app under this key.
        OptionError: An option is out of range, or is one of a worker that was not asked for.
    """
    open_ = opening(
        app, "everloop.aiohttp.setup()", worker=worker, concurrency=concurrency, queues=queues, grace=grace
    )
    if key in site:
        raise UsageError(
            f"this aiohttp application has the app {site[key].name!r} already; give setup() of {app.name!r} "
            'another key: web.AppKey("name", App)'
        )
    site[key] = app
    site.middlewares.insert(0, _visits)  # outside of the user's: a timeout of theirs is not the server

    async def opened(_: web.Application) -> AsyncGenerator[None]:
        async with open_():
            yield

    site.cleanup_ctx.append(opened)


@web.middleware
async def _visits(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    async def handle() -> web.StreamResponse:
        return await handler(request)

    return await visit(handle())


def inject(
    handler: Callable[Concatenate[A, ...], Awaitable[web.StreamResponse]],
) -> Callable[[A], Awaitable[web.StreamResponse]]:
    """Fill in the parameters of a handler that stand for `Use(...)`: connections, sessions, resources.

    They are entered before the handler and left after it. So a transaction is committed when the handler
    has returned, before its response is sent, and a commit that fails answers 500. It is rolled back when
    the handler raises, also a `web.HTTPException` of 400 or more, when it is cancelled, and when it returns
    a response of 500 or more. A response of less that is returned, a 404 too, and a redirect that is
    raised, commit. A connection is taken from the pool by the first statement.

    It fits coroutine functions, and the methods of a `web.View`.

    Raises:
        FunctionError: No parameter stands for `Use(...)`.
    """
    parameters = injected(handler)
    name = getattr(handler, "__qualname__", repr(handler))
    if not parameters:
        raise FunctionError(
            f"inject has nothing to fill in: no parameter of {name}() stands for Use(...); write for "
            "instance `conn: AsyncConnection = Use(db.transaction)`, or leave the decorator out"
        )

    @wraps(handler)
    async def handle(asked: A) -> web.StreamResponse:
        answer: web.StreamResponse | None = None
        redirect: web.HTTPException | None = None
        with suppress(NotKept):
            async with Scopes.entered(parameters, {}) as scopes:
                try:
                    answer = _checked(await handler(asked, **scopes.values), name)
                except web.HTTPException as error:
                    if error.status >= 400:
                        raise
                    redirect = error
                else:
                    check_status(answer.status)
        if redirect is not None:
            raise redirect
        return _checked(answer, name)

    return handle


def _checked(answer: Any, name: str) -> web.StreamResponse:
    if not isinstance(answer, web.StreamResponse):
        raise FunctionError(f"the handler {name}() returned {answer!r:.100}, and no response of aiohttp")
    return answer
