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
