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
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import msgspec

from everloop._core.errors import ClosedError, StoreError, StoreUnavailable
from everloop._core.gate import WriteGate
from everloop.store.sql.dialect import Template, statements
from everloop.store.sql.verbs.statement import Statement, Verb

T = TypeVar("T")

#: Called with (statement name, index) before each statement, and around COMMIT: tests make it raise.
Fault = Callable[[str, int], None]

#: How long a writer waits for the file before the store counts as unavailable, in seconds.
PATIENCE = 30.0
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")
_decode = msgspec.json.Decoder(list[list[Any]]).decode
_encode = msgspec.json.Encoder().encode


class SqliteRunner:
    """One connection in one thread of its own; `run` sends it a verb and awaits the answer."""

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], name: str, gate: WriteGate, fault: Fault | None
    ) -> None:
        self._connect = connect
        self._gate = gate
        self._fault = fault
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name=f"everloop-{name}", daemon=True)
        self._thread.start()

    async def run(self, verb: Verb[T], *, write: bool = True, durable: bool = True) -> T:
        """Run `verb` in a transaction and return its answer after the commit.

        Without `durable` the commit survives the death of the process but perhaps not that of the machine:
        for what dies with the machine anyway.
        """
        if durable:
            return await self.call(lambda connection: self._transact(connection, verb, write=write))
        return await self.call(lambda connection: self._transact_lightly(connection, verb))

    async def call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` with the connection, in the thread."""
        if self._closed:
            raise ClosedError("the store is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                answer = work(self._open())
            except BaseException as error:  # noqa: BLE001 - delivered to the caller
                _deliver(loop, future, None, error)
            else:
                _deliver(loop, future, answer, None)

        self._work.put(run)
        # The transaction goes on when the caller is cancelled: only the answer is dropped.
        return await asyncio.shield(future)

    def close(self) -> None:
        """Close the connection and end the thread, after the work that was sent. Idempotent."""
        if not self._closed:
            self._closed = True
            self._work.put(None)
            self._thread.join()

    # -- in the thread --------------------------------------------------------------------------------

    def _loop(self) -> None:
        while (work := self._work.get()) is not None:
            work()
        if self._connection is not None:
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _transact_lightly(self, connection: sqlite3.Connection, verb: Verb[T]) -> T:
        connection.execute("PRAGMA synchronous = NORMAL")
        try:
            return self._transact(connection, verb, write=True)
        finally:
            connection.execute("PRAGMA synchronous = FULL")

    def _transact(self, connection: sqlite3.Connection, verb: Verb[T], *, write: bool) -> T:
        if not write:
            return self._drive(connection, verb, "BEGIN")
        with self._gate.hold(timeout=PATIENCE):
            return self._drive(connection, verb, "BEGIN IMMEDIATE")

    def _drive(self, connection: sqlite3.Connection, verb: Verb[T], begin: str) -> T:
        begin_patiently(connection, begin)
        try:
            answer, done = self._execute_all(connection, verb)
            self._meet_fault("COMMIT", done)
            _commit(connection)
        except BaseException:
            verb.close()
            _roll_back(connection)
            raise
        self._meet_fault("COMMITTED", done)
        return answer

    def _execute_all(self, connection: sqlite3.Connection, verb: Verb[T]) -> tuple[T, int]:
        """Drive the verb to its end; return its answer and how many statements it took."""
        done = 0
        reply: Any = None
        try:
            while True:
                statement = verb.send(reply)
                self._meet_fault(statement.name, done)
                reply = execute(connection, statement)
                done += 1
        except StopIteration as end:
            return end.value, done

    def _meet_fault(self, name: str, done: int) -> None:
        if self._fault is not None:
            self._fault(name, done)


def begin_patiently(connection: sqlite3.Connection, begin: str) -> None:
    """Begin, waiting for other processes' writes with short random sleeps.

    SQLite's own busy handler sleeps up to 100 ms at a time, which starves a writer among quick ones.
    """
    deadline = time.monotonic() + PATIENCE
    pause = 0.0002
    while True:
        try:
            connection.execute(begin)
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorname", "").startswith(_BUSY) and time.monotonic() < deadline:
                time.sleep(pause * (0.5 + random.random()))  # noqa: S311 - no secret
                pause = min(pause * 1.3, 0.004)
                continue
            raise explain(error, begin) from error
        else:
            return


def execute(connection: sqlite3.Connection, statement: Statement) -> Any:
    """Execute one statement; return its rows, or how many rows it changed."""
    template = statements("sqlite")[statement.name]
    parameters = {
        name: _encode(value).decode() if isinstance(value, list | dict) else value
        for name, value in statement.parameters.items()
    }
    try:
        cursor = connection.execute(sql_of(template), parameters)
        if not template.columns:
            return cursor.rowcount
        if not template.sql.startswith("SELECT"):
            return [list(row) for row in cursor.fetchall()]
        ((rows,),) = cursor.fetchall()
    except sqlite3.Error as error:
        raise explain(error, statement.name) from error
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


def _deliver(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], answer: Any, error: BaseException | None
) -> None:
    def settle() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(error)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        # The loop is closed: nobody waits any more. What was committed stays committed.
        return
