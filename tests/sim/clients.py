"""What simulated clients do: they submit trees, wait for them, change their minds, and note what they saw."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import everloop
from everloop import Task
from tests.sim.bodies import app, call_of
from tests.sim.ledger import Ledger, Seen
from tests.sim.nodes import Node

T = TypeVar("T")

#: Seconds before a client asks again after the store has failed.
AGAIN = 0.5


async def persist(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until the store answers, as users do with what is not repeated for them."""
    while True:
        try:
            return await ask()
        except everloop.StoreError:
            await asyncio.sleep(AGAIN)


class Client:
    """One client, over its lives.

    Args:
        name: Says which.
        errands: What it has to do.
        ledger: Takes what it saw.
    """

    def __init__(self, name: str, errands: Sequence[list[Any]], ledger: Ledger) -> None:
        self.name = name
        self.done = False
        self._errands = list(errands)
        self._ledger = ledger
        self._submitted: list[str] = []  # what an earlier life has submitted and knows of
        self._begun: set[str] = set()
        self._changed_mind: list[Task[Any]] = []

    async def live(self, node: Node) -> None:
        """Do what is left to do, and look again at what an earlier life has submitted."""
        async with app:
            earlier = [self._look_again(node, id_) for id_ in self._submitted]
            left = [errand for errand in self._errands if errand[2][0] not in self._begun]
            await asyncio.gather(*earlier, *(self._do(node, *errand) for errand in left))
        self.done = True

    async def _look_again(self, node: Node, id_: str) -> None:
        task = await persist(lambda: app.get_task(id_))
        node.server.watch.sometimes["a client came back for a call"] += 1
        await self._see(task, task)

    async def _do(self, node: Node, how: str, at: float, plan: Any, cancel_after: float | None) -> None:
        await asyncio.sleep(at)
        self._begun.add(plan[0])
        match how:
            case "submit" | "many":
                await self._submit(how, plan, cancel_after)
            case "await" | "create":
                task = app.create_task(call_of(plan))
                if cancel_after is not None:
                    asyncio.get_running_loop().call_later(cancel_after, self._cancel, task)
                await self._store(task)
                await self._see(task, task)
            case _:
                try:
                    await asyncio.wait_for(call_of(plan), 1.5)
                except TimeoutError:
                    node.server.watch.sometimes["a client waited for long enough"] += 1
                except asyncio.CancelledError:
                    node.server.watch.sometimes["a call was cancelled that a client waited for"] += 1
                except (everloop.CallError, everloop.StoreError):
                    node.server.watch.sometimes["a client saw a failure"] += 1

    def _cancel(self, task: Task[Any]) -> None:
        self._ledger.cancelled.add(task.id)
        self._changed_mind.append(task)
        task.cancel("enough")

    async def _store(self, task: Task[Any]) -> None:
        try:
            await task.stored()
        except (everloop.StoreError, everloop.KeyConflict):
            return  # whoever awaits it gets the same
        self._acknowledge(task)

    def _acknowledge(self, task: Task[Any]) -> None:
        self._ledger.acknowledged[task.id] = self.name
        self._submitted.append(task.id)

    async def _submit(self, how: str, plan: Any, cancel_after: float | None) -> None:
        try:
            if how == "submit":
                task = await app.submit(call_of(plan))
            else:
                (task,) = await app.submit_many([call_of(plan)])
                await task.stored()
        except (everloop.StoreError, everloop.KeyConflict):
            return
        self._acknowledge(task)
        if cancel_after is not None:
            await asyncio.sleep(cancel_after)
            self._ledger.cancelled.add(task.id)
            await persist(lambda: app.cancel(task.id, "no more"))
        await self._see(task, task)

    async def _see(self, task: Task[Any], waiting: Awaitable[Any]) -> None:
        try:
            value = await waiting
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            if task in self._changed_mind:
                # It may have joined another call since: then that is the one whose end was asked for.
                self._ledger.cancelled.add(task.id)
            seen = Seen(self.name, task.id, "cancelled")
        except everloop.EverloopError as error:
            if isinstance(error, everloop.KeyConflict | everloop.StoreError):
                return
            seen = Seen(self.name, task.id, "error", type(error).__name__)
        else:
            seen = Seen(self.name, task.id, "value", value)
        self._ledger.seen.append(seen)
