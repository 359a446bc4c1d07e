"""A task that pays when it may, and handlers that wait for it in each way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import everloop
from everloop import App, Call, TaskFunction
from tests.helpers.waiting import until


class Till:
    """An app whose one task waits for `may_pay`, and what happened in order."""

    def __init__(self, folder: Path) -> None:
        self.app = App("till", f"sqlite:///{folder}/till.db")
        self.may_pay = asyncio.Event()
        self.lines: list[str] = []
        self.pay: TaskFunction[[str], str] = self.app.task(self._pay())

    def _pay(self) -> Callable[[str], Awaitable[str]]:
        async def pay(name: str) -> str:
            self.lines.append(f"{name} begins")
            try:
                await self.may_pay.wait()
            except asyncio.CancelledError:
                self.lines.append(f"{name} stops: {everloop.current().stopping}")
                raise
            self.lines.append(f"{name} is paid")
            return f"{name} is paid"

        return pay

    async def until(self, *lines: str) -> None:
        await until(lambda: all(line in self.lines for line in lines), what=f"{lines} in {self.lines}")

    async def states(self) -> list[str]:
        return [task.state for task in await self.app.tasks()]

    async def until_states(self, *states: str) -> None:
        async def there() -> bool:
            return await self.states() == list(states)

        await until(there, what=f"the calls are {states}")

    def handle(self, wait: Callable[[Call[str]], Awaitable[str]]) -> Callable[[], Awaitable[str]]:
        """Return a handler that waits for one payment in this way, and notes how that ended."""

        async def handle() -> str:
            try:
                said = await wait(self.pay("tea"))
            except BaseException as error:
                self.lines.append(f"handler: {type(error).__name__}")
                raise
            self.lines.append(f"handler: {said}")
            return said

        return handle


async def plainly(call: Call[str]) -> str:
    return await call


async def with_gather(call: Call[str]) -> str:
    return (await asyncio.gather(call, asyncio.sleep(0)))[0]


async def with_wait_for(call: Call[str]) -> str:
    return await asyncio.wait_for(call, 600)


async def with_timeout(call: Call[str]) -> str:
    async with asyncio.timeout(600):
        return await call


async def in_a_group(call: Call[str]) -> str:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(call)
    return task.result()


async def in_a_group_in_a_task(call: Call[str]) -> str:
    return await asyncio.create_task(in_a_group(call))


WAYS = [plainly, with_gather, with_wait_for, with_timeout, in_a_group, in_a_group_in_a_task]
