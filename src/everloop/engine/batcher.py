"""Group commit without a timer: while a flush is in flight, requests gather for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")
A = TypeVar("A")


class Again(Enum):
    """What a flush answers for an item that has to be asked for once more, after a pause."""

    AGAIN = "again"


AGAIN = Again.AGAIN
#: Seconds of that pause.
PAUSE = 0.05


class Batcher(Generic[T, A]):
    """Gathers single requests into plural ones.

    Args:
        flush: Answers a batch, item by item, in order. When it raises, every request of the batch does.
            Items that it answers with AGAIN are asked for again later, and hold up nobody until then.
        most: Items in one batch, at most.
        name: Names the flushing task.

    Example:
        ```python
        import asyncio

        async def double(items):
            return [2 * item for item in items]

        async def main() -> None:
            batcher = Batcher(double, most=100, name="double")
            print(await asyncio.gather(batcher.ask(1), batcher.ask(2)))

        asyncio.run(main())
        ```
    """

    def __init__(
        self, flush: Callable[[Sequence[T]], Awaitable[Sequence[A | Again]]], *, most: int, name: str
    ) -> None:
        self._flush = flush
        self._most = most
        self._name = name
        self._waiting: list[tuple[T, asyncio.Future[A]]] = []
        self._later: list[tuple[T, asyncio.Future[A]]] = []
        self._flushing: asyncio.Task[None] | None = None

    def ask(self, item: T) -> asyncio.Future[A]:
        """Send one request with the next batch; return its answer to come."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        self._start()
        return answer

    async def room(self, most: int) -> None:
        """Wait until fewer than `most` requests wait for their first answer."""
        while len(self._waiting) >= most:
            await asyncio.wait([self._waiting[0][1]])

    async def idle(self) -> None:
        """Wait until nothing is waiting and nothing is in flight."""
        while self._flushing is not None or self._later:
            if self._flushing is not None:
                await asyncio.wait([self._flushing])
                self._flushing = None
            else:
                await asyncio.sleep(PAUSE)
            if self._waiting:  # the flush was cancelled: asyncio ends every task before anybody cleans up
                self._start()

    def _start(self) -> None:
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.get_running_loop().create_task(
                self._run(), name=f"everloop-{self._name}"
            )

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            try:
                answers = await self._flush([item for item, _ in batch])
            except asyncio.CancelledError:
                self._waiting[:0] = batch
                raise
            except Exception as error:  # noqa: BLE001 - it belongs to those who asked
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                self._answer(batch, answers)

    def _answer(self, batch: list[tuple[T, asyncio.Future[A]]], answers: Sequence[A | Again]) -> None:
        if AGAIN in answers:
            asyncio.get_running_loop().call_later(PAUSE, self._ask_again)
        for asked, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Again):
                self._later.append(asked)
            elif not asked[1].done():
                asked[1].set_result(answer)

    def _ask_again(self) -> None:
        self._waiting += self._later
        self._later.clear()
        self._start()
