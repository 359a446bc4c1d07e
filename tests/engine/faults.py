"""Stores that fail as a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from everloop import App
from everloop._core.errors import StoreUnavailable
from everloop._core.records import Added, NewCall, Turn, TurnAnswer
from everloop.store.sql.store import SqliteStore
from everloop.store.url import sqlite_path

#: Gets the name of the statement (or "COMMIT", "COMMITTED") and those before it; raises to fail there.
Plan = Callable[[str, list[str]], None]


class Faults:
    """The fault hook of an app's SQLite stores; the transactions of each thread are told apart."""

    def __init__(self, app: App) -> None:
        self.plan: Plan = _nothing
        self._local = threading.local()
        path = sqlite_path(app.store_url)
        app.open_store = lambda: SqliteStore(path, fault=self)  # type: ignore[method-assign]  # its seam

    def __call__(self, name: str, index: int) -> None:
        before: list[str] = getattr(self._local, "before", [])
        if index == 0 and name not in ("COMMIT", "COMMITTED"):
            before = self._local.before = []
        self.plan(name, before)
        before.append(name)

    def go_away(self) -> None:
        """Let the store answer nothing."""
        self.plan = _unavailable

    def come_back(self) -> None:
        """Let it answer everything."""
        self.plan = _nothing

    def lose_answers(self, when: Callable[[list[str]], bool]) -> None:
        """Let answers get lost after the commit of those transactions."""

        def plan(name: str, before: list[str]) -> None:
            if name == "COMMITTED" and when(before):
                raise StoreUnavailable("the answer got lost")

        self.plan = plan


def _nothing(name: str, before: list[str]) -> None:
    """Fail nowhere."""


def _unavailable(name: str, before: list[str]) -> None:
    raise StoreUnavailable("the test took the store away")


class Poisoned(SqliteStore):
    """A store on which requests with a certain item fail."""

    poison: bytes = b"poison"
    error: Exception = ValueError("this item cannot be stored")

    async def turn(self, session: int, turn: Turn) -> TurnAnswer:
        values = [outcome.value or b"" for outcome in turn.outcomes]
        if any(self.poison in part for part in [*(call.args for call in turn.adds), *values]):
            raise self.error
        return await super().turn(session, turn)

    async def add(self, session: int | None, calls: Sequence[NewCall]) -> list[Added]:
        if any(self.poison in call.args for call in calls):
            raise self.error
        return await super().add(session, calls)
