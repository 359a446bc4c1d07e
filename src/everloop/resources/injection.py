"""Injection: `Use(scope)` as a default value, entered around each run of the body."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar, cast

from everloop._core.errors import OptionError
from everloop.resources.database import Transaction

T = TypeVar("T")


class Injected:
    """The default value that `Use` leaves: which scope to enter."""

    def __init__(self, scope: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self.scope = scope

    def __repr__(self) -> str:
        return f"Use({getattr(self.scope, '__qualname__', self.scope)})"


def Use(scope: Callable[[], AbstractAsyncContextManager[T]], /) -> T:  # noqa: N802 - reads as a marker
    """Stand as the default value of a parameter that Everloop fills in when the task runs.

    Args:
        scope: A resource, `db.connection`, `db.transaction`, `db.session`, or any callable without
            parameters that returns an asynchronous context manager. It is entered before the body, and
            left after it with the body's exception.

    Raises:
        OptionError: It is something else; a context manager itself is passed without being called.

    Example:
        ```python
        import aiohttp
        from everloop import App, Use

        app = App("pages", "memory://")

        @app.task
        async def status(url: str, session: aiohttp.ClientSession = Use(app.http)) -> int:
            async with session.get(url) as response:
                return response.status
        ```
    """
    given: object = scope
    if not callable(given):
        called = (
            "; pass it without calling it: Use(http), not Use(http())" if hasattr(given, "__aenter__") else ""
        )
        raise OptionError(f"Use() takes a resource or another scope, not {given!r:.100}{called}")
    return cast("T", Injected(scope))


def injected(fn: Callable[..., Any]) -> dict[str, Injected]:
    """Return the parameters of `fn` whose default is `Use(...)`."""
    parameters = inspect.signature(fn).parameters.values()
    return {p.name: p.default for p in parameters if isinstance(p.default, Injected)}


class Scopes:
    """The scopes that are entered around one body."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._transactions: list[Transaction] = []

    @classmethod
    @asynccontextmanager
    async def entered(
        cls, parameters: Mapping[str, Injected], given: Mapping[str, Any]
    ) -> AsyncGenerator[Scopes]:
        """Enter the scopes of the parameters that are not given, in order; leave them in reverse."""
        scopes = cls()
        async with AsyncExitStack() as stack:
            for name, marker in parameters.items():
                if name not in given:
                    manager = marker.scope()
                    scopes.values[name] = await stack.enter_async_context(manager)
                    if isinstance(manager, Transaction):
                        scopes._transactions.append(manager)
            yield scopes

    def own_transaction(self) -> Transaction | None:
        """Return the transaction that has begun on the store's own database, if one has."""
        for transaction in self._transactions:
            if transaction.own and transaction.began:
                return transaction
        return None
