"""Run verbs on SQLite: a whole transaction in one hop to a thread that owns the connection.

Why not simpler? A statement per `await` costs a thread hop each; a row per statement gives the
interpreter lock away at each row, and gets it back after up to 5 ms when the loop is busy (measured:
1,000 inserted rows took 2.9 s beside a busy loop, and 34 ms as one statement over a JSON array). So a
verb runs whole in the thread, every statement takes its rows as one JSON array, and a query gives its
rows back as one JSON text.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, TypeVar

import msgspec

from everloop._core.errors import StoreError, StoreUnavailable
from everloop._core.gate import WriteGate
from everloop.store.sql.dialect import Template, statements
from everloop.store.sql.runners.thread import Begin, ConnectionThread, Fault
from everloop.store.sql.spelling import parameters_of
from everloop.store.sql.verbs.scope import Scope

T = TypeVar("T")

#: How long a writer waits for the file before the store counts as unavailable, in seconds.
PATIENCE = 30.0
#: Seconds between two looks whether another process has left the file: the more, the longer it lies idle.
LONGEST = 0.001
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")
_decode = msgspec.json.Decoder(list[list[Any]]).decode


class SqliteRunner(ConnectionThread[sqlite3.Connection]):
    """Runs verbs on an SQLite file, one transaction at a time."""

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], name: str, gate: WriteGate, fault: Fault | None
    ) -> None:
        self._make = connect
        self._gate = gate
        super().__init__(name, fault)

    def run(
        self, begin: Begin[T], *, write: bool = True, durable: bool = True
    ) -> asyncio.Future[tuple[Scope, T]]:
        return self.call(partial(self._transact, begin=begin, write=write, durable=durable))

    # -- in the thread --------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        return self._make()

    def _disconnect(self, connection: sqlite3.Connection) -> None:
        connection.close()

    def _transact(
        self, connection: sqlite3.Connection, begin: Begin[T], *, write: bool, durable: bool
    ) -> tuple[Scope, T]:
        """Run a verb from BEGIN to COMMIT; what is not committed is rolled back."""
        # One function, without context managers: everybody waits for it, and each hop costs as much as a
        # statement when the machine has been idle.
        scope, verb = begin()
        done = count()
        reply: Any = None
        place = self._gate.enter_thread(PATIENCE) if write else None
        try:
            if not durable:
                connection.execute("PRAGMA synchronous = NORMAL")
            begin_patiently(connection, "BEGIN IMMEDIATE" if write else "BEGIN")
            while True:
                try:
                    asked = verb.send(reply)
                except StopIteration as end:
                    reply = end.value
                    break
                replies: list[Any] = []
                for statement in asked if isinstance(asked, list) else [asked]:
                    self._meet_fault(statement.name, next(done))
                    template = statements("sqlite")[statement.name]
                    if not template.sql:
                        replies.append([])
                        continue
                    try:
                        cursor = connection.execute(sql_of(template), parameters_of(statement))
                        replies.append(_read(cursor, template))
                    except sqlite3.Error as error:
                        raise explain(error, statement.name) from error
                reply = replies if isinstance(asked, list) else replies[0]
            self._meet_fault("COMMIT", next(done))
            _commit(connection)
            self._meet_fault("COMMITTED", next(done))
        except BaseException:
            verb.close()
            _roll_back(connection)
            raise
        finally:
            if not durable:
                connection.execute("PRAGMA synchronous = FULL")
            if place is not None:
                place.leave()
        return scope, reply


def begin_patiently(connection: sqlite3.Connection, begin: str) -> None:
    """Begin, waiting for other processes' writes."""
    try:
        patiently(connection, begin)
    except sqlite3.OperationalError as error:
        raise explain(error, begin) from error


def patiently(connection: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
    """Execute a statement once others let it, waiting with short random sleeps.

    SQLite's own busy handler sleeps up to 100 ms at a time, which starves a writer among quick ones. Where it
    might wait in vain, it is not asked: of two that make a file's first log, one is refused at once.

    Raises:
        sqlite3.OperationalError: It failed, or others hold the file for too long.
    """
    deadline = time.monotonic() + PATIENCE
    pause = 0.0002
    while True:
        try:
            return connection.execute(statement)
        except sqlite3.OperationalError as error:
            busy = getattr(error, "sqlite_errorname", "").startswith(_BUSY)
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(pause * (0.5 + random.random()))  # noqa: S311 - no secret
            pause = min(pause * 1.3, LONGEST)


def _read(cursor: sqlite3.Cursor, template: Template) -> Any:
    """Return a query's rows."""
    if not template.columns:
        return None
    if not template.sql.startswith("SELECT"):
        return [list(row) for row in cursor.fetchall()]
    ((rows,),) = cursor.fetchall()
    return _decode(rows)


_folded: dict[str, str] = {}


def sql_of(template: Template) -> str:
    """Return a statement's text; a query's rows are folded into one JSON text."""
    if not template.columns or not template.sql.startswith("SELECT"):
        return template.sql
    text = _folded.get(template.name)
    if text is None:
        columns = ", ".join(f'"{c}"' for c in template.columns)
        text = f"SELECT json_group_array(json_array({columns})) FROM (\n{template.sql}\n)"  # noqa: S608
        _folded[template.name] = text
    return text


def explain(error: sqlite3.Error, doing: str) -> StoreError:
    """Turn SQLite's error into ours: what failed, and whether it may pass."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(_BUSY):
        return StoreUnavailable(
            f"the SQLite file was locked for {PATIENCE:g} s ({doing}); another program holds a write "
            "transaction open on it: commit or close it"
        )
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return StoreUnavailable(f"SQLite cannot write ({doing}): {error} ({name}); is the disk full?")
    return StoreError(f"SQLite failed ({doing}): {error}" + (f" ({name})" if name else ""))


def _commit(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise explain(error, "COMMIT") from error


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
