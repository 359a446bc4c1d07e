"""Wait for what a test has caused, and no longer than that takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from inspect import isawaitable

#: Seconds between two looks.
PAUSE = 0.002


async def until(true: Callable[[], object], seconds: float = 20.0, what: str = "") -> None:
    """Wait until something is true; fail when it takes unreasonably long."""
    deadline = time.monotonic() + seconds
    while True:
        answer = true()
        if await answer if isawaitable(answer) else answer:
            return
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or true}"
        await asyncio.sleep(PAUSE)
