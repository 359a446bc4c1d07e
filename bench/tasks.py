"""The app that is measured; its store comes from `EVERLOOP_STORE`."""

from __future__ import annotations

import asyncio

from everloop import App

app = App("bench")


@app.task
async def noop(number: int) -> int:
    return number


@app.task
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@app.task
async def node(number: int, size: int, children: int) -> None:
    """Be one call of a tree, numbered generation by generation; the leaves wait until they are cancelled."""
    mine = range(children * number + 1, min(children * (number + 1) + 1, size))
    async with asyncio.TaskGroup() as group:
        for child in mine:
            group.create_task(node(child, size, children))
        if not mine:
            await asyncio.sleep(3600)
