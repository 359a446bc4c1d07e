"""Work that a cancelled task still has to finish: a commit, the closing of what it opened."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds that such work gets after the cancellation, before it is cancelled, too.
GRACE = 10.0


async def to_the_end(work: Coroutine[Any, Any, T], grace: float = GRACE) -> tuple[T, bool]:
    """Wait for `work` also when this task is cancelled meanwhile; return its value, and whether it was.

    The caller raises `CancelledError` when it has drawn its conclusions from the value. Work that fails
    raises its own exception; work that outlasts the grace is cancelled.
    """
    task = asyncio.get_running_loop().create_task(work)
    deadline: float | None = None
    while not task.done():
        left = None if deadline is None else max(0.0, deadline - task.get_loop().time())
        try:
            await asyncio.wait([task], timeout=left)
        except asyncio.CancelledError:
            deadline = task.get_loop().time() + grace if deadline is None else deadline
        if deadline is not None and task.get_loop().time() >= deadline:
            task.cancel()
            deadline += grace
    return task.result(), deadline is not None


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Wait for `work` to its end, then raise the cancellation that came meanwhile, if one did."""
    value, cancelled = await to_the_end(work)
    if cancelled:
        raise asyncio.CancelledError
    return value
