"""A visit: one request to a web server, and whether the server has given it up.

A server that ends a handler (its client went away, or it shuts down) cancels the handler's task, as a
timeout of the handler's own code does, and the exception tells nothing. Here the handler runs in a task
inside the server's: what the handler's code cancels is the inner one, what cancels the outer is the server.

That is seen at once, when the cancellation is asked for, and kept: a task group and the `wait_for` of
Python 3.11 pass a cancellation on later, when the server is no longer on the stack.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")


class Visit:
    """One request.

    Attributes:
        left: Whether the server gives it up: cancellations end the waiting for calls, and not the calls.
    """

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = False


#: The request in whose handler this code runs.
VISIT: ContextVar[Visit | None] = ContextVar("everloop_visit", default=None)


class _Handled(asyncio.Future[None]):
    """What the server's task waits for: the end of the handler. It tells the visit of a cancellation."""

    def __init__(self, visit: Visit, handler: asyncio.Task[Any]) -> None:
        super().__init__(loop=handler.get_loop())
        self._visit = visit
        self._handler = handler
        handler.add_done_callback(self._ended)

    def cancel(self, msg: Any | None = None) -> bool:
        if self.done():
            return False
        self._visit.left = True
        return self._handler.cancel(msg)

    def _ended(self, _: object) -> None:
        self._visit.left = False  # tasks that the handler left behind are cancelled by users only
        if not self.done():
            self.set_result(None)


async def visit(handle: Coroutine[Any, Any, T]) -> T:
    """Run the handler of a request in a task of its own, and return what it returns."""
    here = Visit()
    token = VISIT.set(here)
    try:
        handler = asyncio.get_running_loop().create_task(handle)
    finally:
        VISIT.reset(token)
    await _Handled(here, handler)
    return handler.result()
