"""A connection in the hands of the loop: it hears bells, and takes turns that are sent whole.

A turn that is sent with its commit has nothing to decide in between. Whatever the loop does meanwhile, be it
blocked for a minute, the server goes on and holds nothing for it. So such a turn needs no thread, and the way
from the bell to it, and from its answer to whoever waits, is not one from thread to thread, each of which has
to wake up first.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from psycopg import pq

from everloop._core import forks
from everloop._core.errors import StoreError
from everloop.store.sql.dialect import statements
from everloop.store.sql.runners.postgresql import (
    beginning,
    check,
    committing,
    explained,
    names,
    rows_of,
)
from everloop.store.sql.runners.postgresql_connection import Connection
from everloop.store.sql.runners.postgresql_pipe import LOOK, Asked, Pipe, plain
from everloop.store.sql.runners.server import PATIENCE, Collision, Lost, ServerRunner
from everloop.store.sql.runners.thread import Begin
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Last

T = TypeVar("T")
_Results = list[pq.abc.PGresult]


class Direct:
    """Hears what is notified on a connection, and sends turns on it; made, used and ended on its loop.

    Args:
        connection: It listens already, and is closed here.
        ring: Called when a word has come.
        lost: Called once, when the connection is lost, with the error that says how.

    Attributes:
        trips: Round trips so far, for the tests that count them.
    """

    def __init__(
        self, connection: Connection, ring: Callable[[], None], lost: Callable[[StoreError], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._pipe = Pipe(connection)
        self._ring, self._lost = ring, lost
        self.trips = 0
        self._answer: Generator[None, None, _Results] | None = None  # of the turn that is under way
        self._flight: asyncio.Future[_Results] | None = None  # the same, for who waits for it
        self._landed: asyncio.Future[None] | None = None
        self._sent_at = 0.0
        self._look: asyncio.TimerHandle | None = None
        self._ending = self._closed = False
        self._busy = threading.Lock()  # held in libpq: a fork waits for that
        forks.busy_with(self._busy)
        self._socket = connection.fileno()
        self._loop.add_reader(self._socket, self._readable)

    async def run(
        self, begin: Begin[T], runner: ServerRunner[Connection], *, durable: bool
    ) -> tuple[Scope, T] | None:
        """Run a verb, as `runner` would; None where that has to do it: nothing has happened here then.

        Raises:
            StoreError: The verb has failed, or the connection is lost.
        """
        while self._answer is not None:  # of a turn whose caller was cancelled
            await self._landing()
        scope, verb = begin()
        scope.straight, scope.compound = runner.goes_straight, True
        try:
            step = next(verb)
            done = await self._commit(scope, step, durable=durable) if isinstance(step, Last) else None
            if done is None:
                verb.close()
                return None
            step = verb.send(done)
        except StopIteration as end:
            return scope, end.value
        except BaseException:
            verb.close()
            raise
        return await runner.go_on(scope, verb, step)

    async def _commit(self, scope: Scope, step: Last, *, durable: bool) -> list[Any] | None:
        """Send a step with its commit; return the rows of each, or None when nothing has come of it."""
        kept = [(each, statements("postgresql")[each.name]) for each in step]
        first = beginning(self._connection, self._pipe)
        sent, commit = committing(first, kept, scope, durable=durable)
        flight = self._send(sent, names(kept))
        if flight is None:
            return None
        try:
            with explained(names(kept)):
                replies = await flight
                check(replies, commit)
        except Lost:
            raise
        except StoreError as error:
            # The server has undone it, and wants to hear that we know.
            if (rollback := self._send([plain("ROLLBACK")], "ROLLBACK")) is not None:
                await rollback
            if isinstance(error, Collision):
                return None
            raise
        return rows_of(self._pipe, kept, replies[len(first) :])

    def end(self) -> None:
        """Hear no more, and close the connection: after the turn that somebody waits for. Idempotent."""
        self._ending = True
        if self._flight is None or self._flight.done():
            self._close()

    def _send(self, sent: list[Asked], doing: str) -> asyncio.Future[_Results] | None:
        """Begin to send; None when the connection was gone before."""
        if not self._ending:
            with self._in_libpq(doing):
                # Before anything is sent: of what went with a commit nobody knows whether it was received.
                self._see()
            self._hear()
        if self._ending:
            return None
        self.trips += 1
        flight = self._flight = self._loop.create_future()
        self._sent_at = self._loop.time()
        self._look = self._loop.call_later(LOOK, self._look_again)
        with self._in_libpq(doing):
            self._answer = self._pipe.send(sent)
            next(self._answer)
            if not self._pipe.flush():
                self._loop.add_writer(self._socket, self._writable)
        return flight

    def _see(self) -> None:
        if self._pipe.has_ended():
            raise Lost("the connection to PostgreSQL is lost: the server has ended it while it was idle")

    def _readable(self) -> None:
        with self._in_libpq("listening"):
            left = True
            # Until nothing is left: of a reset behind the last bytes uvloop tells once only.
            while self._answer is not None and left:
                try:
                    next(self._answer)
                except StopIteration as end:
                    self._land(end.value, None)
                left = self._pipe.is_readable()
            if self._answer is None:
                self._see()
        self._hear()

    def _writable(self) -> None:
        with self._in_libpq("sending"):
            if self._pipe.flush():
                self._loop.remove_writer(self._socket)

    @contextmanager
    def _in_libpq(self, doing: str) -> Generator[None]:
        """Use the connection; when that is lost, so is what is under way."""
        try:
            with self._busy, explained(doing):
                yield
        except StoreError as error:
            self._give_up(error)

    def _give_up(self, error: StoreError) -> None:
        self._land(None, error)
        self._close()
        self._lost(error)

    def _look_again(self) -> None:
        """Look for an answer that takes long: nobody waits for ever because of a word that has not come."""
        self._readable()
        if self._answer is None:
            return
        if self._loop.time() - self._sent_at > PATIENCE:
            self._give_up(Lost(f"the connection to PostgreSQL is lost: no answer for {PATIENCE:g} s"))
        else:
            self._look = self._loop.call_later(LOOK, self._look_again)

    def _hear(self) -> None:
        heard = False
        while not self._closed and self._connection.pgconn.notifies() is not None:
            heard = True
        if heard and not self._ending:
            self._ring()

    def _land(self, results: _Results | None, error: StoreError | None) -> None:
        """Give the answer to who waits for it."""
        flight, self._flight, self._answer = self._flight, None, None
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if flight is not None and not flight.done():
            if error is not None:
                flight.set_exception(error)
            else:
                flight.set_result(results or [])
        if self._landed is not None:
            self._landed.set_result(None)
            self._landed = None
        if self._ending:
            self._loop.call_soon(self._close)  # when the answer has been read

    async def _landing(self) -> None:
        if self._landed is None:
            self._landed = self._loop.create_future()
        await asyncio.shield(self._landed)

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = self._ending = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._connection.close()
        if self._answer is not None:  # of a turn whose caller was cancelled, and for which the next one waits
            self._land(None, None)
