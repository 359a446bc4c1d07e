"""One open resource: the task that enters it, keeps it, and leaves it.

A resource is entered and left by one task of its own, whose context is empty. Whoever asks first must not
matter: cancelling it does not cancel the opening, its context variables are not seen inside, and a cancel
scope or a task group in the body of a resource may only be left by the task that entered it.

That task, and the generator in it, are hidden from `asyncio.run`, which at its end cancels every task and
then closes every asynchronous generator, in any order, while bodies that are being cancelled still use
what is open. Closing is our own step, after them.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.tasks import _unregister_task  # public: see "Extending" in the documentation of asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextvars import Context, ContextVar
from typing import Any, TypeVar

from everloop._core.errors import ClosedError, FunctionError, WouldDeadlock

T = TypeVar("T")


class Living:
    """A resource on one loop, from before it is open until after it is closed.

    Args:
        name: Its name, for messages.
        open_: The function that makes its asynchronous generator.
        on_open: Called when it is open.
    """

    def __init__(
        self, name: str, open_: Callable[[], AsyncIterator[Any]], on_open: Callable[[Living], None]
    ) -> None:
        self.name = name
        self._open = open_
        self._on_open = on_open
        loop = asyncio.get_running_loop()
        self._value: asyncio.Future[Any] = loop.create_future()
        self._value.add_done_callback(_look_at)
        self._leaving: asyncio.Future[None] = loop.create_future()
        self.inside: asyncio.Task[Any] | None = None
        context = Context()
        context.run(_OPENING.set, (*_OPENING.get(), self))
        self._task = loop.create_task(self._live(), name=f"everloop-resource-{name}", context=context)
        self._task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - hidden, see above
        _unregister_task(self._task)

    @property
    def failed(self) -> bool:
        """Whether the opening has failed: the next who asks tries anew."""
        return self._value.done() and self._value.exception() is not None

    async def get(self) -> Any:
        """Wait until it is open; return the shared object.

        Raises:
            WouldDeadlock: It is being opened, and that is what waits.
        """
        if not self._value.done():
            self._refuse_circle()
        return await asyncio.shield(self._value)

    def _refuse_circle(self) -> None:
        opening = _OPENING.get()
        if self in opening and asyncio.current_task() is opening[-1].inside:
            names = [each.name for each in opening[opening.index(self) :]]
            raise WouldDeadlock(
                f"the resource {self.name!r} needs itself to be opened: {' -> '.join([*names, self.name])}; "
                "take what both need out into a resource of its own"
            )

    def give_up(self) -> None:
        """Cancel an opening that is under way; those who wait for it get `ClosedError`."""
        if not self._value.done():
            self._value.set_exception(self._closed())
            self._task.cancel()

    async def close(self) -> None:
        """Leave the body of the resource; raise what it raises."""
        if not self._leaving.done():
            self._leaving.set_result(None)
        await asyncio.wait([self._task])
        self._task.result()

    # -- in its task ------------------------------------------------------------------------------------

    async def _live(self) -> None:
        self.inside = asyncio.current_task()
        generator = self._open()
        try:
            value = await _first_of(generator)
        except StopAsyncIteration:
            self._fail(
                FunctionError(f"the resource {self.name!r} yields nothing; it has to yield the shared object")
            )
        except BaseException as error:  # noqa: BLE001 - it is raised to those who wait
            self._fail(self._closed() if isinstance(error, asyncio.CancelledError) else error)
        else:
            if not self._value.done():
                self._on_open(self)
                self._value.set_result(value)
                with contextlib.suppress(asyncio.CancelledError):
                    await self._leaving
            await self._leave(generator)

    def _fail(self, error: BaseException) -> None:
        if not self._value.done():
            self._value.set_exception(error)

    async def _leave(self, generator: AsyncIterator[Any]) -> None:
        try:
            await anext(generator)
        except StopAsyncIteration:
            return
        if isinstance(generator, AsyncGenerator):
            await generator.aclose()
        raise FunctionError(
            f"the resource {self.name!r} yields more than once; it yields the shared object, then closes it"
        )

    def _closed(self) -> ClosedError:
        return ClosedError(f"the app was closed while its resource {self.name!r} was being opened")


#: The resources in whose opening this code runs, the outermost first.
_OPENING: ContextVar[tuple[Living, ...]] = ContextVar("everloop_opening", default=())


def _look_at(value: asyncio.Future[Any]) -> None:
    """Mark an exception as seen: nobody may be waiting for it any more."""
    value.exception()


async def _first_of(generator: AsyncIterator[T]) -> T:
    """Begin a generator without the loop's knowledge, so that the loop does not close it at its end."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        first = anext(generator)
    finally:
        sys.set_asyncgen_hooks(*hooks)
    return await first
