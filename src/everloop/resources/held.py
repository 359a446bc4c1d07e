"""What this code holds while it runs: connections and write transactions that a call may need.

A scope, or a write transaction on `db.engine`, is noted in the context in which it begins, so that the tasks
that are started inside see it, and the object they share tells them when it is over.
"""

from __future__ import annotations

import asyncio
import sys
from contextvars import ContextVar
from types import FrameType

from everloop._core.errors import WouldDeadlock

_NOT_THE_USERS = frozenset({"everloop", "asyncio", "contextlib", "greenlet", "sqlalchemy"})


class Holding:
    """One scope: it holds something from its first statement until its end.

    Attributes:
        database: Names the database, for messages.
        file: The SQLite file, or an empty text.
        own: Whether it is the store's own database.
        connection: Whether it holds a connection of the pool.
        writing: Whether it holds a write transaction.
        over: Whether its end has come; it may come in another context than its beginning.
    """

    def __init__(self, database: str, file: str, *, own: bool) -> None:
        self.database = database
        self.file = file
        self.own = own
        self.connection = False
        self.writing = False
        self.over = False
        self._task = asyncio.current_task()
        self._frame = _user_frame()
        self._parameter = ""
        self._began: tuple[str, int] | None = None

    def name_parameter(self, name: str) -> None:
        """Note that it was entered for a parameter of a task function."""
        self._parameter = name

    def begin(self) -> None:
        """Note the line of the first statement, as far as the stack shows it."""
        if self._began is None:
            self._began = _user_frame() or self._frame

    @property
    def active(self) -> bool:
        """Whether it holds anything now."""
        return self.connection or self.writing

    def __str__(self) -> str:
        what = "a write transaction" if self.writing else "a connection"
        place = self._began or self._frame
        told = [f"the parameter {self._parameter!r}"] if self._parameter else []
        told += [f"since {place[0]}:{place[1]}"] if place is not None else []
        return f"{what} on {self.database}" + (f" ({', '.join(told)})" if told else "")

    def blocks(self, file: str) -> bool:
        """Whether the running task would wait for itself if it began to write this file."""
        return self.writing and self.file == file and self._task is asyncio.current_task()


_HOLDINGS: ContextVar[tuple[Holding, ...]] = ContextVar("everloop_holdings", default=())


def enter(holding: Holding) -> None:
    """Note a scope that begins in this context."""
    _HOLDINGS.set((*(each for each in _HOLDINGS.get() if not each.over), holding))


def leave(holding: Holding) -> None:
    """Forget it; tasks that were started inside see that it is over."""
    holding.connection = holding.writing = False
    holding.over = True
    _HOLDINGS.set(tuple(each for each in _HOLDINGS.get() if each is not holding))


def held(*, own_write: bool = False) -> str | None:
    """Name what this code holds, or None; with `own_write` only a write on the store's own file counts."""
    holdings = _HOLDINGS.get()
    if not holdings:
        return None
    for holding in reversed(holdings):
        own_file = holding.own and bool(holding.file)  # a server has more writers than one
        if (holding.writing and own_file) if own_write else holding.active:
            return str(holding)
    return None


def check_write(name: str) -> None:
    """Refuse what writes to the store where the running task holds the one place for that.

    Raises:
        WouldDeadlock: It names both.
    """
    own = next((each for each in _HOLDINGS.get() if each.own), None)
    holding = None if own is None else writing(own.file)
    if holding is not None:
        raise WouldDeadlock(
            f"{name}() writes to the store, and this code holds {holding}: the store waits for that, and "
            "both would wait for ever. Leave the `async with` block first"
        )


def writing(file: str) -> Holding | None:
    """Return the write transaction that the running task has open on this SQLite file."""
    return next((each for each in reversed(_HOLDINGS.get()) if each.blocks(file)), None)


def _user_frame() -> tuple[str, int] | None:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the user's line is for the message
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module == "everloop.engine.executor":
            return None
        if module.partition(".")[0] not in _NOT_THE_USERS:
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None
