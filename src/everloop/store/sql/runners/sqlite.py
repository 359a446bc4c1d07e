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
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from itertools import count
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

#: What the thread is sent: a whole transaction, as a rule.
Work = Callable[[sqlite3.Connection], Any]

#: How long a writer waits for the file before the store counts as unavailable, in seconds.
PATIENCE = 30.0
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")
_decode = msgspec.json.Decoder(list[list[Any]]).decode
_encode = msgspec.json.Encoder().encode


class SqliteRunner:
    """One connection in one thread of its own; `run` sends it a verb, and gives the answer to come."""

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], name: str, gate: WriteGate, fault: Fault | None
    ) -> None:
        self._connect = connect
        self._gate = gate
        self._fault = fault
        self._work: SimpleQueue[tuple[Work, asyncio.Future[Any]] | None] = SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name=f"everloop-{name}", daemon=True)
        self._thread.start()

    def run(self, verb: Verb[T], *, write: bool = True, durable: bool = True) -> asyncio.Future[T]:
        """Send `verb`, to be run in a transaction; return its answer to come, after the commit.

        Without `durable` the commit survives the death of the process but perhaps not that of the machine:
        for what dies with the machine anyway.
        """
        return self.call(partial(self._transact, verb=verb, write=write, durable=durable))

    def call(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Send `work`, to be called with the connection in the thread; return its answer to come.

        Work that was sent is done, also when its caller is cancelled: only the answer is dropped.
        """
        if self._closed:
            raise ClosedError("the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._work.put((work, future))
        return future

    def close(self) -> None:
        """Close the connection and end the thread, after the work that was sent. Idempotent."""
        if not self._closed:
            self._closed = True
            self._work.put(None)
            self._thread.join()

    # -- in the thread --------------------------------------------------------------------------------

    def _loop(self) -> None:
        while (sent := self._work.get()) is not None:
            work, future = sent
            try:
                _deliver(future, work(self._open()), None)
            except BaseException as error:  # noqa: BLE001 - delivered to the caller
                _deliver(future, None, error)
            del sent, work, future  # a thread that waits keeps nothing of its callers alive
        if self._connection is not None:
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _transact(self, connection: sqlite3.Connection, verb: Verb[T], *, write: bool, durable: bool) -> T:
        """Run a verb from BEGIN to COMMIT."""
        done = count()
        reply: Any = None
        with self._begun(connection, write=write, durable=durable), closing(verb):
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
                    try:
                        cursor = connection.execute(sql_of(template), parameters_of(statement))
                        replies.append(_read(cursor, template))
                    except sqlite3.Error as error:
                        raise explain(error, statement.name) from error
                reply = replies if isinstance(asked, list) else replies[0]
            self._meet_fault("COMMIT", next(done))
            _commit(connection)
            self._meet_fault("COMMITTED", next(done))
        return reply  # type: ignore[no-any-return]  # the verb's answer

    @contextmanager
    def _begun(self, connection: sqlite3.Connection, *, write: bool, durable: bool) -> Generator[None]:
        """Hold a transaction open; what is not committed in the block is rolled back."""
        with self._gate.hold(timeout=PATIENCE) if write else nullcontext():
            if not durable:
                connection.execute("PRAGMA synchronous = NORMAL")
            try:
                begin_patiently(connection, "BEGIN IMMEDIATE" if write else "BEGIN")
                yield
            except BaseException:
                _roll_back(connection)
                raise
            finally:
                if not durable:
                    connection.execute("PRAGMA synchronous = FULL")

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


def parameters_of(statement: Statement) -> dict[str, Any]:
    """Return what is bound to a statement; rows travel as one JSON text."""
    return {
        name: _encode(value).decode() if isinstance(value, list | dict) else value
        for name, value in statement.parameters.items()
    }


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


def _deliver(future: asyncio.Future[T], answer: Any, error: BaseException | None) -> None:
    def settle() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(error)

    try:
        future.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:
        # The loop is closed: nobody waits any more. What was committed stays committed.
        return
