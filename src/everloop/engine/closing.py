"""Telling a closing loop, or a visitor who has left, from a user's cancel."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def loop_is_closing() -> bool:
    """Tell whether this cancellation comes from Ctrl-C or from the end of `asyncio.run`.

    asyncio cancels everything then, with nothing in the exception that says so. What can be seen is that
    the `Runner`, whose handler SIGINT has, noted an interrupt, or that `_cancel_all_tasks` is on the stack.
    """
    runner = getattr(getattr(signal.getsignal(signal.SIGINT), "func", None), "__self__", None)
    return getattr(runner, "_interrupt_count", 0) > 0 or _is_running("_cancel_all_tasks")


def visitor_has_left() -> bool:
    """Tell whether this cancellation comes from a transport that lost its connection.

    So aiohttp's `handler_cancellation` ends the handler of a request whose client went away.
    """
    return _is_running("connection_lost")


def _is_running(name: str) -> bool:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the stack is the only witness
    while frame is not None:
        if frame.f_code.co_name == name:
            return True
        frame = frame.f_back
    return False
