"""Run a verb on a plain DB-API connection: what Django's `connection.connection` is, for one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, TypeVar

from everloop.store.sql.runners.hand import Hand
from everloop.store.transactions import UserTransaction

T = TypeVar("T")


class SqliteHand:
    """A connection of Python's own `sqlite3` in hand."""

    style = "named"
    failures: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.notes: dict[Any, Any] = {}  # nothing is kept with such a connection

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, sql: str, parameters: Any = None) -> Sequence[Sequence[Any]] | None:
        with closing(self._connection.cursor()) as cursor:
            cursor.row_factory = None  # whatever the user wants of rows
            cursor.execute(sql, parameters or {})
            return cursor.fetchall() if cursor.description is not None else None

    def at_a_stretch(self, work: Callable[[Hand], T]) -> T:
        return work(self)

    def transaction(self) -> UserTransaction:
        connection = self._connection

        def is_open() -> bool:
            try:
                return connection.in_transaction
            except sqlite3.ProgrammingError:  # it is closed, which has rolled back
                return False

        return UserTransaction(self._file(), is_open, tells=False)

    def _file(self) -> str:
        rows = self.execute("PRAGMA database_list")
        return os.fsdecode((rows or [(0, "main", "")])[0][2])
