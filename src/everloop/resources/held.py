"""What this code holds while it runs: connections and write transactions that a call may need."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from types import FrameType


class Holding:
    """One scope: it holds something from its first statement until its end.

    Attributes:
        what: Names it, for `WouldDeadlock`.
        own_write: Whether it is a write transaction on the store's own file.
    """

    def __init__(self, what: str, *, own_write: bool) -> None:
        self.what = f"{what} (from {_user_line()})"
        self.own_write = own_write
        self.active = False


_HOLDINGS: ContextVar[tuple[Holding, ...]] = ContextVar("everloop_holdings", default=())


def enter(holding: Holding) -> None:
    """Note a scope that begins in this context."""
    _HOLDINGS.set((*_HOLDINGS.get(), holding))


def leave(holding: Holding) -> None:
    """Forget it; tasks that were started inside see that it is over."""
    holding.active = False
    _HOLDINGS.set(tuple(each for each in _HOLDINGS.get() if each is not holding))


def held(*, own_write: bool = False) -> str | None:
    """Name what this code holds, or None; with `own_write` only a write on the store's own file counts."""
    for holding in reversed(_HOLDINGS.get()):
        if holding.active and (holding.own_write or not own_write):
            return holding.what
    return None


def _user_line() -> str:
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - for the message
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == "everloop.engine.executor":
            break
        if not module.startswith(("everloop.", "contextlib", "asyncio")):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return "a parameter of this task"
