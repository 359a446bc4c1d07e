"""Calls that no worker of the bench knows: another program of the same app declares them."""

from __future__ import annotations

from everloop import App

app = App("bench")


@app.task
async def stranger(number: int) -> int:
    return number
