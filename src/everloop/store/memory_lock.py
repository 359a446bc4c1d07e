"""The lock that makes the verbs of the memory store atomic among threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import wraps
from types import CoroutineType
from typing import Any, Concatenate, ParamSpec, TypeVar


class Locking:
    """What has such a lock."""

    lock: AbstractContextManager[bool]


S = TypeVar("S", bound=Locking)
P = ParamSpec("P")
T = TypeVar("T")


def atomic(
    verb: Callable[Concatenate[S, P], Awaitable[T]],
) -> Callable[Concatenate[S, P], CoroutineType[Any, Any, T]]:
    """Let no other thread in while a verb runs."""

    @wraps(verb)
    async def locked(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        await asyncio.sleep(0)  # as a store that answers later would: who asks in a loop starves nobody
        with self.lock:
            return await verb(self, *args, **kwargs)

    return locked  # type: ignore[return-value]  # `wraps` forgets that it is a method
