"""What is awaited, or entered: `await create_pool(...)` and `async with create_pool(...)`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Opening(Coroutine[Any, Any, T]):
    """What `create_pool` and `acquire` return: to be awaited, or entered with `async with`."""

    def __init__(self, opening: Coroutine[Any, Any, T], leave: Callable[[T], Awaitable[object]]) -> None:
        self._opening = opening
        self._leave = leave

    def send(self, value: Any) -> Any:
        return self._opening.send(value)

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Any:  # noqa: ARG002 - the old signature
        return self._opening.throw(typ if val is None else val)

    def close(self) -> None:
        self._opening.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._opening.__await__()

    async def __aenter__(self) -> T:
        self._value = await self._opening
        return self._value

    async def __aexit__(self, *exception: object) -> None:
        _ = await self._leave(self._value)
