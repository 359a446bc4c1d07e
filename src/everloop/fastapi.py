"""Everloop's resources as dependencies of FastAPI."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeVar, cast

from everloop._adapters import NotKept, check_status
from everloop._core.errors import MissingDependency
from everloop.resources.injection import Injected, Scopes
from everloop.resources.injection import Use as UseInTask

try:
    from fastapi import Depends, HTTPException, Response
except ModuleNotFoundError as error:
    raise MissingDependency(
        'everloop.fastapi needs FastAPI 0.121 or newer: pip install "fastapi>=0.121"'
    ) from error

__all__ = ["Use"]

T = TypeVar("T")


def Use(scope: Callable[[], AbstractAsyncContextManager[T]], /) -> T:  # noqa: N802 - as everloop.Use
    """Stand as the default value of a parameter that FastAPI fills in: a connection, a session, a resource.

    It is entered before the path operation and left after it, before the response is sent. So a
    transaction is committed when the function has returned, and a commit that fails answers 500. It is
    rolled back when the function raises, also an `HTTPException` of 400 or more, when it is cancelled, and
    when it has set `response.status_code` to 500 or more. FastAPI does not show us a `Response` object that
    the function returns: raise `HTTPException(503)` instead of returning one. A connection is taken from
    the pool by the first statement. In one request, the same scope gives the same object, also in other
    dependencies.

    Args:
        scope: As for `everloop.Use`: a resource, `db.connection`, `db.transaction`, `db.session`, or any
            callable without parameters that returns an asynchronous context manager.

    Raises:
        OptionError: It is something else.

    Example:
        ```python
        import asyncio
        import everloop.asgi
        import httpx
        from everloop import App
        from everloop.fastapi import Use
        from fastapi import FastAPI
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import AsyncConnection

        app = App("shop", "memory://")
        db = app.database("sqlite:///orders.db")
        api = FastAPI(lifespan=everloop.asgi.lifespan(app))

        @api.post("/orders", status_code=201)
        async def order(tea: str, conn: AsyncConnection = Use(db.transaction)) -> None:
            await conn.execute(text("create table if not exists orders (tea text)"))
            await conn.execute(text("insert into orders values (:tea)"), {"tea": tea})

        async def main() -> None:
            here = httpx.ASGITransport(api)
            async with api.router.lifespan_context(api), httpx.AsyncClient(transport=here) as visitor:
                print((await visitor.post("http://shop/orders?tea=green")).status_code)

        asyncio.run(main())
        ```
    """
    marker = cast("Injected", UseInTask(scope))
    try:
        depends = Depends(_Dependency(marker), scope="function")
    except TypeError as error:
        raise MissingDependency(
            "everloop.fastapi needs FastAPI 0.121 or newer, whose dependencies can end before the response "
            'is sent: pip install "fastapi>=0.121"'
        ) from error
    return cast("T", depends)


class _Dependency:
    """A dependency with `yield` around one scope; equal to another of the same, so that FastAPI shares it."""

    def __init__(self, marker: Injected) -> None:
        self._marker = marker
        self._key = _key(marker.scope)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Dependency) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    async def __call__(self, response: Response) -> AsyncGenerator[Any]:
        redirect: HTTPException | None = None
        with suppress(NotKept):
            async with Scopes.entered({"scope": self._marker}, {}) as scopes:
                try:
                    yield scopes.values["scope"]
                except HTTPException as error:
                    if error.status_code >= 400:
                        raise
                    redirect = error
                else:
                    # FastAPI's own response: it has no status until the function sets one.
                    check_status(cast("int | None", response.status_code) or 200)
        if redirect is not None:
            raise redirect


def _key(scope: object) -> object:
    try:
        hash(scope)
    except TypeError:  # it is callable, and that is all that is asked
        return id(scope)
    return scope
