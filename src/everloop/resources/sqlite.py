"""SQLite under the pool: durable connections that begin at the first write, in a fair line, and let go.

The driver's own transactions are off. Before the first statement that writes (in `db.transaction()` and
`db.session()` before the first statement) the connection waits at the file's write gate, then sends BEGIN
IMMEDIATE. Statements that only read, before that, run by themselves, as they do with Python's own sqlite3.

Why not BEGIN at once, and upgrade later? A transaction that has read cannot become a writer when another
has written since: SQLite refuses it (SQLITE_BUSY_SNAPSHOT), however long it waits. And one that is open for
reading keeps the write-ahead log from being copied back, for as long as a body takes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

import aiosqlite
from aiosqlite.core import _STOP_RUNNING_SENTINEL
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.exc import PendingRollbackError

from everloop._core.errors import StoreUnavailable, WouldDeadlock
from everloop._core.gate import Place, WriteGate, write_gate
from everloop.resources import held
from everloop.resources.patience import finish, to_the_end

log = logging.getLogger("everloop")

T = TypeVar("T")

#: Milliseconds that SQLite itself waits for a lock, in its thread: for what needs one outside of BEGIN.
BUSY_MS = 5_000
#: Seconds between two looks at a statement that was interrupted.
_INTERRUPT = 0.01
_OUTSIDE = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:(with)|select|explain|pragma|values|vacuum|attach|detach|begin|commit"
    r"|end|rollback|release)\b",
    re.IGNORECASE | re.DOTALL,
)
_ROLLED_BACK = (
    "SQLite has rolled this transaction back by itself (the error before this one says why): nothing of it "
    "can be committed. Leave the block with that error, or call rollback()"
)
_WRITES = re.compile(r"\b(?:insert|update|delete|replace)\b", re.IGNORECASE)


def writes(statement: str) -> bool:
    """Tell whether a statement needs a write transaction; what cannot be told counts as one that does."""
    found = _OUTSIDE.match(statement)
    if found is None:
        return True
    return found[1] is not None and _WRITES.search(statement) is not None


class Writer(Protocol):
    """Who begins a write transaction: a scope, or a use of `db.engine`, which notes what it holds."""

    @property
    def holding(self) -> held.Holding:
        """What it holds."""
        ...

    def began(self) -> None:
        """Note that the write transaction is open."""
        ...

    def ended(self) -> None:
        """Note that it is over, committed or rolled back."""
        ...

    def lost(self) -> None:
        """Note that it is over, because its connection was closed."""
        ...


class SqliteConnection(aiosqlite.Connection):
    """A driver's connection that holds the write gate exactly while it is in a write transaction.

    A cancelled statement is interrupted, and waited for: the thread is idle when the error is seen.
    """

    def __init__(self, connector: Callable[[], sqlite3.Connection], file: Path, patience: float) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self._thread.daemon = True  # an app that nobody closes must not keep the process alive
        self._thread.name = f"everloop-pool-{file.name}"
        self._file = file
        self._gate: WriteGate = write_gate(file)
        self._patience = patience
        self._beginning = asyncio.Lock()
        # Invariant: a place is kept exactly while a transaction that `begin` began is open.
        self._place: Place | None = None
        self._writer: Writer | None = None

    async def opened(self) -> SqliteConnection:
        """Start the thread and open the file; when cancelled meanwhile, close it again."""
        _, cancelled = await to_the_end(self._opened())
        if cancelled:
            await self.close()
            raise asyncio.CancelledError
        return self

    async def _opened(self) -> None:
        _ = await self

    # -- transactions -----------------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; a closed connection has none."""
        return self._is_open()

    def _is_open(self) -> bool:
        connection = self._connection
        return connection is not None and connection.in_transaction

    async def begin(self, writer: Writer) -> None:
        """Open a write transaction, unless one is open.

        Raises:
            WouldDeadlock: The running task has one open on this file, on another connection.
            StoreUnavailable: The file was being written for as long as this connection is patient.
        """
        if self._is_open():
            return
        if self._place is not None:
            raise PendingRollbackError(_ROLLED_BACK)
        other = held.writing(str(self._file))
        if other is not None:
            raise WouldDeadlock(
                f"this would wait for ever: the same task holds {other}, and SQLite has one writer at a "
                "time. Use that connection here, or leave its block first"
            )
        deadline = time.monotonic() + self._patience
        async with self._beginning:
            if self._is_open():  # by another statement of this connection
                return
            place = await self._gate.enter(self._patience, writer.holding)
            try:
                await self._begin_patiently(deadline)
            except BaseException:
                try:
                    if self._is_open():  # it has begun all the same, when this was cancelled
                        await finish(self._run(self._roll_back))
                finally:
                    place.leave()
                raise
            self._place, self._writer = place, writer
            writer.began()

    async def _begin_patiently(self, deadline: float) -> None:
        pause = 0.0005
        while True:
            try:
                await self._run(self._begin_once)
            except sqlite3.OperationalError as error:
                if not getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
                    raise
                if time.monotonic() > deadline:
                    raise StoreUnavailable(
                        f"{self._file} was being written by another process for {self._patience:g} s: it "
                        "holds a write transaction open; commit or close it there"
                    ) from error
                await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311 - no secret
                pause = min(pause * 1.3, 0.01)
            else:
                return

    def _begin_once(self) -> None:
        # SQLite's own waiting would keep the thread, cannot be interrupted, and is not fair.
        connection = self._conn
        connection.execute("PRAGMA busy_timeout = 0").close()
        try:
            connection.execute("BEGIN IMMEDIATE").close()
        finally:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}").close()

    def _commit(self) -> None:
        try:
            self._conn.commit()
        except sqlite3.Error:
            # A deferred constraint leaves the transaction open, and SQLAlchemy would put it back into the
            # pool.
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self.in_transaction:
            self._conn.rollback()

    async def commit(self) -> None:
        """Commit, and let the next writer in."""
        try:
            if self._place is not None and not self.in_transaction:
                raise PendingRollbackError(_ROLLED_BACK)
            if self.in_transaction:
                await self._run(self._commit)
        finally:
            self._let_go()

    async def rollback(self) -> None:
        """Roll back, and let the next writer in."""
        try:
            if self.in_transaction:
                await self._run(self._roll_back)
        finally:
            self._let_go()

    async def close(self) -> None:
        """Close, which rolls back and ends the thread, and let the next writer in."""
        if self._running and self._connection is not None:
            done = self._send(self._give_up)
            self._running = False  # what is sent after that would never be answered
            await self._answer(done, interrupt=False)

    def stop(self) -> asyncio.Future[Any] | None:
        """Close from any thread and without a loop; a statement that runs is interrupted."""
        self._running = False
        self._tx.put_nowait((None, self._give_up))
        self._interrupt()
        return None

    def _give_up(self) -> object:
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                _close(connection)
        except sqlite3.Error:
            log.exception("everloop: closing a connection to %s failed", self._file)
        self._let_go(lost=True)
        return _STOP_RUNNING_SENTINEL

    def _let_go(self, *, lost: bool = False) -> None:
        if self._place is None or (self.in_transaction and not lost):
            return
        place, self._place = self._place, None
        writer, self._writer = self._writer, None
        place.leave()
        if writer is not None and lost:
            writer.lost()
        elif writer is not None:
            writer.ended()

    # -- running in the thread --------------------------------------------------------------------------

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self._answer(self._send(partial(fn, *args, **kwargs)), interrupt=True)

    async def in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` whole with the driver's connection, in its thread; it is waited for, whatever happens."""
        answer: T = await self._answer(self._send(lambda: work(self._conn)), interrupt=False)
        return answer

    async def _run(self, work: Callable[[], object]) -> None:
        """Run what is short and must not be interrupted."""
        await self._answer(self._send(work), interrupt=False)

    def _send(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        if not self._running or self._connection is None:
            raise ValueError("no active connection")  # as the driver says it: SQLAlchemy looks for this text
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # Not given to the driver, whose thread would end if the loop is closed when it has the answer.
        self._tx.put_nowait((None, partial(_perform, work, done)))
        return done

    async def _answer(self, done: asyncio.Future[Any], *, interrupt: bool) -> Any:
        """Wait for the thread; when cancelled meanwhile, stop the statement, and wait all the same."""
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            while not done.done():
                # Once is not enough: the thread may not have begun the statement yet.
                if interrupt:
                    self._interrupt()
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([done], timeout=_INTERRUPT)
            done.exception()
            raise

    def _interrupt(self) -> None:
        if self._connection is not None:
            self._connection.interrupt()


def _perform(work: Callable[[], object], done: asyncio.Future[Any]) -> object:
    """Run `work` in the thread of a connection, and tell the loop."""
    answer: object = None
    failure: BaseException | None = None
    try:
        answer = work()
    except BaseException as error:  # noqa: BLE001 - raised to who waits
        failure = error

    def tell() -> None:
        if failure is None:
            done.set_result(answer)
        else:
            done.set_exception(failure)

    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        done.get_loop().call_soon_threadsafe(tell)
    return answer


class _Connection(sqlite3.Connection):
    """Knows its cursors: a statement that somebody still holds keeps SQLite from closing a file."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursors: WeakSet[sqlite3.Cursor] = WeakSet()

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        cursor = super().cursor(*args, **kwargs)
        self.cursors.add(cursor)
        return cursor


def _close(connection: sqlite3.Connection) -> None:
    if isinstance(connection, _Connection):
        # An interrupt stays in force as long as a statement is open, and ROLLBACK would meet it.
        for cursor in list(connection.cursors):
            cursor.close()
    if connection.in_transaction:
        connection.rollback()
    connection.close()


def connector(
    dialect: Dialect, url: URL, file: Path, given: dict[str, Any], *, own: bool
) -> sqlite3.Connection:
    """Open the file with durable settings; runs in the connection's thread."""
    arguments, defaults = dialect.create_connect_args(url)
    options: dict[str, Any] = {"timeout": BUSY_MS / 1000, **defaults, **given}
    where = arguments[0] if options.get("uri") else file
    fixed: dict[str, Any] = {"isolation_level": None, "check_same_thread": False, "factory": _Connection}
    connection: sqlite3.Connection = sqlite3.connect(where, **(options | fixed))
    try:
        _prepare(connection, own=own)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, *, own: bool) -> None:
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
            break
        except sqlite3.OperationalError as error:
            name = getattr(error, "sqlite_errorname", "")
            if name.startswith("SQLITE_READONLY"):  # opened with `mode=ro`
                break
            # To switch takes a lock for which SQLite does not always wait: another connection switches.
            if not name.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
    connection.execute("PRAGMA synchronous = FULL").close()
    if own:
        # Only the store's keeper checkpoints this file: see SqliteFile.checkpoint.
        connection.execute("PRAGMA wal_autocheckpoint = 0").close()
