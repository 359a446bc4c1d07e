"""Run verbs on a database server: what its dialects have in common.

The driver is a blocking one, in the thread that owns the connection: a transaction that holds row locks then
never waits for a user's loop, and a cancelled coroutine never leaves a reply unread.

A statement that is no query is kept until the next query, or the commit, and goes with it; a list of queries
goes together. The server is asked only as often as a verb has to know something.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Generic, TypeVar

from everloop._core.errors import StoreError, StoreUnavailable
from everloop.store.refusals import Refusal
from everloop.store.sql.dialect import Template, statements
from everloop.store.sql.runners.thread import Begin, ConnectionThread, Fault
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Last, Statement, Step, Verb

C = TypeVar("C")
T = TypeVar("T")

#: Said behind what a server says of it.
FULL_DISK = "; the server's disk is full: give it space, and what waits goes on by itself"
#: Seconds that a server may take for an answer. It waits for a lock 5 s at most.
PATIENCE = 60.0
#: How often a transaction is begun anew when it met another one.
TRIES = 8
#: Seconds before it is, at most, doubled each time.
PAUSE = 0.005


class Collision(StoreUnavailable):
    """The transaction met another one (a deadlock, a lock held for too long, the same id): begin it anew."""


class Held(Collision):
    """It waited for a lock in vain."""


class Lost(StoreUnavailable):
    """The connection is gone.

    Attributes:
        undone: It certainly took the transaction with it: the commit had not been sent.
        unsent: It was seen before anything was sent.
    """

    undone = True
    unsent = False


class CannotOpen(StoreUnavailable):
    """No connection could be opened.

    Attributes:
        lasting: Whether that does not pass by itself. A store that has been open waits all the same: what is
            wrong now was right before.
    """

    def __init__(self, refused: Refusal) -> None:
        super().__init__(refused.text)
        self.lasting = refused.lasting


@dataclass(slots=True)
class _Doing:
    """How far a verb is.

    Attributes:
        kept: Statements that wait for the next query, or the commit.
        number: Of the next place at which a test may let it fail.
        committing: Whether a commit has been sent.
        committed: Whether all that was sent is committed.
        commits: How many transactions of it are there.
    """

    kept: list[tuple[Statement, Template]] = field(default_factory=list[tuple[Statement, Template]])
    number: Iterator[int] = field(default_factory=count)
    committing: bool = False
    committed: bool = False
    commits: int = 0


class ServerRunner(ConnectionThread[C], Generic[C]):
    """Runs verbs on one connection to a server, one transaction at a time.

    Attributes:
        trips: Round trips so far, for the tests that count them.
        hasty: Whether a lock that was waited for in vain is not waited for again.
    """

    dialect: str
    #: Whether it knows the statements of turns that go straight.
    _straight = False
    #: Whether one statement may do several things.
    _compound = False

    def __init__(self, connect: Callable[[], C], name: str, fault: Fault | None) -> None:
        self._make = connect
        self.trips = 0
        self.hasty = False
        self._met = False  # the transaction under way has met another one, and is begun anew
        super().__init__(name, fault)

    def run(
        self, begin: Begin[T], *, write: bool = True, durable: bool = True
    ) -> asyncio.Future[tuple[Scope, T]]:
        return self.call_anew(partial(self._transact, begin=begin, durable=durable or not write))

    def call_anew(self, work: Callable[[C], T]) -> asyncio.Future[T]:
        """Send work that may be repeated: on a fresh connection, or when it collides with another's."""
        return self.call(partial(self._repeat, work=work))

    @property
    def goes_straight(self) -> bool:
        """Whether it knows the statements of turns that go straight."""
        return self._straight

    def go_on(self, scope: Scope, verb: Verb[T], step: Statement | Step) -> asyncio.Future[tuple[Scope, T]]:
        """Go on with a verb that has committed elsewhere and yields `step` now, in another transaction."""
        scope.has_woken()
        begun = iter([(scope, _resumed(verb, step))])

        def begin() -> tuple[Scope, Verb[T]]:
            for each in begun:
                return each
            raise StoreUnavailable(
                "the second half of a turn met another transaction, or lost its connection"
            )

        return self.run(begin)

    # -- in the thread --------------------------------------------------------------------------------

    def _connect(self) -> C:
        return self._make()

    def _repeat(self, connection: C, work: Callable[[C], T]) -> T:
        pause = PAUSE
        self._met = False
        for tried in range(1, TRIES + 1):
            try:
                return work(connection)
            except Lost as error:
                self._forget()
                if not error.undone or tried > 1:
                    raise
                connection = self._open()  # it had been idle: the server, or a proxy, has closed it
            except Collision as error:
                if tried == TRIES or (self.hasty and isinstance(error, Held)):
                    raise
                self._met = True
                time.sleep(pause * random.random())  # noqa: S311 - no secret
                pause *= 2
        raise AssertionError("the last try returns or raises")

    def _forget(self) -> None:
        """Drop the connection; the next work opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._disconnect(connection)

    def _transact(self, connection: C, begin: Begin[T], *, durable: bool) -> tuple[Scope, T]:
        """Run a verb from BEGIN to COMMIT."""
        scope, verb = begin()
        scope.straight = self._straight and not self._met
        scope.compound = self._compound
        doing = _Doing()
        try:
            self._begin_transaction(connection)
            with closing(verb):
                reply: Any = None
                while True:
                    try:
                        asked = verb.send(reply)
                    except StopIteration as end:
                        reply = end.value
                        break
                    reply = self._do(connection, scope, doing, asked, durable=durable)
            if not doing.committed:
                self._commit_all(connection, scope, doing, durable=durable)
        except BaseException as error:
            if isinstance(error, Lost):
                error.undone = not doing.commits and (error.unsent or not doing.committing)
            elif not doing.committed:
                self._undo(connection)
            if isinstance(error, Collision) and doing.commits and not scope.unchanged:
                raise StoreUnavailable(str(error)) from error  # not anew: a part of it is there
            raise
        return scope, reply

    def _do(self, connection: C, scope: Scope, doing: _Doing, asked: Any, *, durable: bool) -> Any:
        """Execute what a verb has yielded, or keep it; return the reply to it."""
        if doing.committed:
            self._begin_transaction(connection)
            doing.committed = False
            scope.has_woken()
        step: list[Statement] = asked if isinstance(asked, list) else [asked]
        kept, known = doing.kept, statements(self.dialect)
        for statement in step:
            self._meet_fault(statement.name, next(doing.number))
            kept.append((statement, known[statement.name]))
        if isinstance(asked, Last):
            rows = self._commit_all(connection, scope, doing, durable=durable, behind=asked.behind)
            return rows[-len(step) :]
        if not any(template.columns for _, template in kept[-len(step) :]):
            return None
        rows = self._execute(connection, kept)[-len(step) :]
        kept.clear()
        return rows if isinstance(asked, list) else rows[0]

    def _commit_all(
        self, connection: C, scope: Scope, doing: _Doing, *, durable: bool, behind: int = 0
    ) -> list[Any]:
        """Execute what was kept, and commit; return the rows of each."""
        self._meet_fault("COMMIT", next(doing.number))
        doing.committing = True
        rows = self._commit(connection, doing.kept, scope, durable=durable, behind=behind)
        doing.kept.clear()
        doing.committed = True
        doing.commits += 1
        self._meet_fault("COMMITTED", next(doing.number))
        return rows or []

    def _undo(self, connection: C) -> None:
        """Roll back, whatever has failed."""
        try:
            self._roll_back(connection)
        except StoreError:
            self._forget()  # the server rolls back what its client has left

    @abstractmethod
    def _begin_transaction(self, connection: C) -> None:
        """Begin; may wait until the first query."""

    @abstractmethod
    def _execute(self, connection: C, kept: list[tuple[Statement, Template]]) -> list[Any]:
        """Execute statements in order, in one round trip; return the rows of each."""

    @abstractmethod
    def _commit(
        self,
        connection: C,
        kept: list[tuple[Statement, Template]],
        scope: Scope,
        *,
        durable: bool,
        behind: int = 0,
    ) -> list[Any] | None:
        """Execute what was kept, commit, and wake whom the scope names, in one round trip.

        The last `behind` of it are queries that may follow all that. Returns the rows of each where turns go
        straight.
        """

    @abstractmethod
    def wake(self, connection: C, scope: Scope) -> None:
        """Wake whom the scope names, after a commit that somebody else has made; in the thread."""

    @abstractmethod
    def _roll_back(self, connection: C) -> None:
        """Roll back.

        Raises:
            StoreError: The connection cannot be used any more.
        """


def _resumed(verb: Verb[T], step: Any) -> Verb[T]:
    """Be a verb that has yielded this already."""
    with closing(verb):
        while True:
            reply = yield step
            try:
                step = verb.send(reply)
            except StopIteration as end:
                answer: T = end.value
                return answer
