"""Resources: what a process opens once and shares among tasks and web handlers."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar

from everloop._core.codec import parameters_of
from everloop._core.errors import FunctionError
from everloop.resources.opened import OpenHere, OpenPerLoop

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


class ResourcePool:
    """Every resource of one app: declared here, opened once per process and loop."""

    def __init__(self) -> None:
        self._declared: dict[str, Resource[Any]] = {}
        self._open = OpenPerLoop()

    def declare(self, fn: Callable[[], AsyncIterator[T]], *, name: str = "") -> Resource[T]:
        """Make a resource of an asynchronous generator function.

        Raises:
            FunctionError: It is none, takes parameters, or its name is taken.
        """
        name = name or getattr(fn, "__name__", repr(fn))
        _check(fn, name)
        other = self._declared.get(name)
        if other is not None and _place(other.open) != _place(fn):
            raise FunctionError(
                f"there is a resource {name!r} already ({_place(other.open)}); give this function "
                f"({_place(fn)}) another name"
            )
        resource = Resource(self, name, fn)
        self._declared[name] = resource
        return resource

    async def get(self, resource: Resource[T]) -> T:
        """Return the shared object, opened once however many ask at the same time.

        An opening that fails fails for everybody who waits for it, and is tried anew by the next. It goes
        on when one of those who wait is cancelled.

        Raises:
            ClosedError: The app is being closed.
        """
        value: T = await self.here().get(resource, resource.name, resource.open)
        return value

    def here(self) -> OpenHere:
        """Return what is open in this process and on the running loop.

        Raises:
            ClosedError: The app is being closed.
            UsageError: No loop runs.
        """
        return self._open.here()

    async def aclose(self) -> None:
        """Close what is open on the running loop, the last opened first; one failure spares the others."""
        await self._open.aclose()


def _check(fn: object, name: str) -> None:
    if not inspect.isasyncgenfunction(fn):
        raise FunctionError(
            f"the resource {name!r} has to be an asynchronous generator function that yields once:\n"
            f"    async def {name}() -> AsyncIterator[...]:\n"
            "        async with ... as it:\n"
            "            yield it"
        )
    if parameters_of(fn):
        raise FunctionError(
            f"the resource {name!r} takes parameters, but it is opened without any: let it read its settings "
            "itself, or enter another resource in it with `async with other() as it:`"
        )


def _place(fn: Callable[..., object]) -> str:
    """Say where a function is; a module that is imported twice defines it twice, in the same place."""
    code = fn.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
