"""The call: the inert object that calling a task function gives, as calling a coroutine function does."""

from __future__ import annotations

import warnings
from collections.abc import Coroutine, Generator
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

from everloop._core.errors import AlreadyAwaited
from everloop._core.ids import new_id
from everloop._options import NOTHING, Options, Settings, read_options

if TYPE_CHECKING:
    from everloop._functions import TaskFunction
    from everloop._task import Task

R_co = TypeVar("R_co", covariant=True)

_births = count()


class Call(Coroutine[Any, Any, R_co], Generic[R_co]):
    """One durable invocation, not yet scheduled: the durable counterpart of a coroutine object.

    Everything of asyncio that takes a coroutine takes it. Nothing happens until it is awaited,
    scheduled or submitted, and that happens once; one that never is warns, as a coroutine does.

    Example:
        ```python
        import asyncio
        from everloop import App

        app = App("pages", "memory://")

        @app.task
        async def length(text: str) -> int:
            return len(text)

        async def main() -> None:
            first = length("one")
            print(first.id, await first)
            print(await asyncio.gather(length("two"), length("three").options(priority=5)))

        app.run(main())
        ```
    """

    __module__ = "everloop"
    __slots__ = ("_birth", "_overrides", "_steps", "_taken", "args", "function", "id")

    def __init__(self, function: TaskFunction[..., R_co], args: bytes, overrides: Settings = NOTHING) -> None:
        self.function = function
        self.args = args
        self.id = overrides.id or new_id()
        self._overrides = overrides
        self._taken = False
        self._steps: Generator[Any, Any, R_co] | None = None
        # asyncio keeps tasks in sets: hashing by birth gives them one order, in every process.
        self._birth = next(_births)

    def __hash__(self) -> int:
        return self._birth

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<everloop.Call {self.function.name} {self.id}>"

    if not TYPE_CHECKING:  # a checker would take any attribute for a text

        def __getattr__(self, name: str) -> str:
            if name in ("__name__", "__qualname__"):  # asyncio shows a task by its coroutine's
                return self.function.name
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def overrides(self) -> Settings:
        """What was asked of this call beyond its function's own options."""
        return self._overrides

    def options(self, **options: Unpack[Options]) -> Call[R_co]:
        """Return this call with other options; the later wins. The call itself is used up.

        Raises:
            OptionError: An option is unknown, or its value is out of range.
        """
        return self.changed(read_options(options, self.function.name))

    def changed(self, later: Settings) -> Call[R_co]:
        """Return this call overridden by `later`, and use this one up."""
        if later is NOTHING:
            return self
        self.take()
        call = Call(self.function, self.args, self._overrides.then(later))
        if later.id is None:
            call.id = self.id
        return call

    def take(self) -> None:
        """Use the call up: it is scheduled once.

        Raises:
            AlreadyAwaited: It was scheduled before.
        """
        if self._taken:
            raise AlreadyAwaited(
                f"{self!r} was scheduled before: a call runs once, like a coroutine. Keep its task "
                f"(task = app.create_task({self.function.name}(...))) to await it twice, or call "
                f"{self.function.name}(...) again for another run"
            )
        self._taken = True

    def refused(self) -> None:
        """Note that this was refused, and that it was said: no warning that it was never awaited."""
        self._taken = True

    # -- as a coroutine -----------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, Any, R_co]:
        app = self.function.app
        try:
            app.check_wait(self.function.name)
            task: Task[R_co] = app.begin(self)
        except BaseException:
            self.refused()
            raise
        return task.__await__()

    def send(self, value: Any, /) -> Any:
        if self._steps is None:
            self._steps = self.__await__()
        return self._steps.send(value)

    def throw(self, typ: Any, val: Any = None, tb: Any = None, /) -> Any:
        if self._steps is None:
            self._taken = True  # thrown into before its first step: nothing has been submitted
            raise typ if val is None else val
        return self._steps.throw(typ) if val is None else self._steps.throw(typ, val, tb)

    def close(self) -> None:
        """Give the call up: unsubmitted, it never runs; submitted, it goes on."""
        self._taken = True
        if self._steps is not None:
            self._steps.close()

    def __del__(self) -> None:
        if not self._taken:
            warnings.warn(
                f"call of {self.function.name!r} was never awaited: nothing was submitted. Await it, or "
                f"`await app.submit({self.function.name}(...))`",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )
