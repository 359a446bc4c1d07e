"""Resources: what a process opens once and shares among tasks and web handlers."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from everloop._core.errors import ClosedError, FunctionError

log = logging.getLogger("everloop")

T = TypeVar("T")


class Resource(Generic[T]):
    """Something shared: opened at first use in this process and loop, closed with the app.

    `async with http() as session` gives it anywhere; leaving the block does not close it.

    Example:
        ```python
        from collections.abc import AsyncIterator
        from everloop import App, Use

        app = App("shop", "memory://")

        @app.resource
        async def prices() -> AsyncIterator[dict[str, int]]:
            yield {"tea": 3}

        @app.task
        async def price(name: str, table: dict[str, int] = Use(prices)) -> int:
            return table[name]

        print(app.run(price("tea")))
        ```
    """

    __module__ = "everloop"

    def __init__(self, pool: ResourcePool, name: str, open_: Callable[[], AsyncIterator[T]]) -> None:
        self.name = name
        self.open = open_
        self._pool = pool

    def __repr__(self) -> str:
        return f"<everloop.Resource {self.name}>"

    def __call__(self) -> AbstractAsyncContextManager[T]:
        """Return a context manager that gives the shared object."""
        return self._shared()

    @asynccontextmanager
    async def _shared(self) -> AsyncGenerator[T]:
        yield await self._pool.get(self)


class _Opened:
    """What is open on one loop."""

    def __init__(self) -> None:
        self.openings: dict[Resource[Any], asyncio.Task[Any]] = {}
        self.closers: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self.closing = False


class ResourcePool:
    """Every resource of one app in this process, by loop."""

    def __init__(self) -> None:
        self._declared: dict[str, Resource[Any]] = {}
        self._pid = os.getpid()
        self._opened: WeakKeyDictionary[asyncio.AbstractEventLoop, _Opened] = WeakKeyDictionary()

    def declare(self, fn: Callable[[], AsyncIterator[T]], *, name: str = "") -> Resource[T]:
        """Make a resource of an asynchronous generator function.

        Raises:
            FunctionError: It is none, takes parameters, or its name is taken.
        """
        name = name or getattr(fn, "__name__", repr(fn))
        if not inspect.isasyncgenfunction(fn):
            raise FunctionError(
                f"the resource {name!r} has to be an asynchronous generator function that yields once:\n"
                f"    async def {name}() -> AsyncIterator[...]:\n"
                "        async with ... as it:\n"
                "            yield it"
            )
        if inspect.signature(fn).parameters:
            raise FunctionError(f"the resource {name!r} takes parameters; it is opened without any")
        other = self._declared.get(name)
        if other is not None and other.open.__code__ is not fn.__code__:
            raise FunctionError(f"there is a resource {name!r} already; give this function another name")
        resource = Resource(self, name, fn)
        self._declared[name] = resource
        return resource

    async def get(self, resource: Resource[T]) -> T:
        """Return the shared object, opened once however many ask at the same time.

        An opening that fails fails for everybody who waits for it, and is tried anew by the next.
        """
        opened = self.here()
        opening = opened.openings.get(resource)
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception())):
            opening = asyncio.get_running_loop().create_task(
                self._open(opened, resource), name=f"everloop-open-{resource.name}"
            )
            opened.openings[resource] = opening
        value: T = await asyncio.shield(opening)
        return value

    async def _open(self, opened: _Opened, resource: Resource[T]) -> T:
        generator = resource.open()
        value = await anext(generator)
        opened.closers.append((resource.name, lambda: _finish(resource.name, generator)))
        return value

    def here(self) -> _Opened:
        """Return what is open on the running loop.

        Raises:
            ClosedError: The app is being closed.
        """
        if os.getpid() != self._pid:
            # A fork: sockets and threads of the parent are not ours to use or to close.
            self._pid = os.getpid()
            self._opened = WeakKeyDictionary()
        opened = self._opened.setdefault(asyncio.get_running_loop(), _Opened())
        if opened.closing:
            raise ClosedError("the app is being closed: its resources cannot be opened now")
        return opened

    async def aclose(self) -> None:
        """Close what is open on the running loop, the last opened first; one failure spares the others."""
        loop = asyncio.get_running_loop()
        opened = self._opened.get(loop)
        if opened is None or os.getpid() != self._pid:
            return
        opened.closing = True
        running = [opening for opening in opened.openings.values() if not opening.done()]
        if running:
            await asyncio.wait(running)
        for name, close in reversed(opened.closers):
            try:
                await close()
            except Exception:
                log.exception("everloop: closing the resource %r failed", name)
        del self._opened[loop]


async def _finish(name: str, generator: AsyncIterator[Any]) -> None:
    try:
        await anext(generator)
    except StopAsyncIteration:
        return
    raise FunctionError(
        f"the resource {name!r} yields more than once; it yields the shared object, then closes it"
    )
