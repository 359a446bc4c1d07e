"""Injection: `Use(scope)` as a default value, entered around each run of the body."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar, cast

from everloop._core.codec import parameters_of
from everloop._core.errors import FunctionError, OptionError
from everloop.resources.database import Database
from everloop.resources.resource import Resource
from everloop.resources.scopes import Scope, WriteScope

T = TypeVar("T")


class Injected:
    """The default value that `Use` leaves: which scope to enter."""

    def __init__(self, scope: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self.scope = scope

    def __repr__(self) -> str:
        if isinstance(self.scope, Resource):
            return f"Use({self.scope.name})"
        return f"Use({getattr(self.scope, '__qualname__', None) or repr(self.scope)})"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{self!r} has no {name!r}: it stands for what Everloop fills in when it runs the function. "
            "Await the call, or run the body here with `await function.plain(...)`"
        )


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
    what_to_do = _what_is_wrong(scope)
    if what_to_do:
        raise OptionError(f"Use() takes a resource or another scope, not {scope!r:.100}: {what_to_do}")
    return cast("T", Injected(scope))


def _what_is_wrong(scope: object) -> str:
    """Say why this is no scope and what to do; an empty text when it may be one."""
    if isinstance(scope, Resource):
        return ""
    if isinstance(scope, Database):
        return "choose a scope of it: Use(db.connection), Use(db.transaction) or Use(db.session)"
    if isinstance(scope, AbstractAsyncContextManager):
        return "pass what makes it, without calling it: Use(http), not Use(http())"
    if not callable(scope):
        return "it has to be callable, and to return an asynchronous context manager"
    return _what_is_wrong_with_function(scope)


def _what_is_wrong_with_function(scope: Callable[..., object]) -> str:
    if inspect.isasyncgenfunction(scope):
        return "decorate that function with @app.resource, to share it, or with @asynccontextmanager"
    if inspect.iscoroutinefunction(scope) or inspect.isgeneratorfunction(scope):
        return "it has to return an asynchronous context manager (@contextlib.asynccontextmanager makes one)"
    try:
        parameters = parameters_of(scope)
    except ValueError:  # a callable of C tells nothing
        return ""
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in optional]
    if not required:
        return ""
    return (
        f"it is called without arguments, but requires {', '.join(required)}; functools.partial can give them"
    )


def injected(fn: Callable[..., Any]) -> dict[str, Injected]:
    """Return the parameters of `fn` whose default is `Use(...)`.

    Raises:
        FunctionError: One of them cannot be given by name.
    """
    found: dict[str, Injected] = {}
    for parameter in parameters_of(fn):
        if isinstance(parameter.default, Injected):
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise FunctionError(
                    f"the parameter {parameter.name!r} of {fn.__qualname__}() is filled in by name, but "
                    "stands before the `/`; move it behind"
                )
            found[parameter.name] = parameter.default
    return found


class Scopes:
    """The scopes that are entered around one body.

    They belong to the loop. Around a `def` that runs in a thread they are entered and left on the loop,
    before and after the thread has run it.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._writers: list[WriteScope] = []

    @classmethod
    @asynccontextmanager
    async def entered(
        cls, parameters: Mapping[str, Injected], given: Mapping[str, Any]
    ) -> AsyncGenerator[Scopes]:
        """Enter the scopes of the parameters that are not given, in order; leave them in reverse.

        They see the body's exception, but cannot keep it from the caller: a body that failed has no value.
        """
        scopes = cls()
        failure: BaseException | None = None
        async with AsyncExitStack() as stack:
            for name, marker in parameters.items():
                if name not in given:
                    scopes.values[name] = await scopes._enter(stack, name, marker)
            try:
                yield scopes
            except BaseException as error:
                failure = error
                raise
        if failure is not None:
            raise failure

    async def _enter(self, stack: AsyncExitStack, name: str, marker: Injected) -> Any:
        manager: object = marker.scope()
        if not isinstance(manager, AbstractAsyncContextManager):
            raise OptionError(
                f"the parameter {name!r}: {marker!r} gave {manager!r:.100}, which is no asynchronous context "
                "manager (it has no __aenter__ and __aexit__)"
            )
        value = await stack.enter_async_context(manager)
        if isinstance(manager, Scope):
            manager.holding.name_parameter(name)
        if isinstance(manager, WriteScope):
            self._writers.append(manager)
        return value

    def own_transaction(self) -> WriteScope | None:
        """Return the scope whose transaction has begun on the store's own database, if one has."""
        return next((scope for scope in self._writers if scope.own and scope.is_open), None)
