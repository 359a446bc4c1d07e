"""Run verbs on PostgreSQL with psycopg, in libpq's pipeline mode: many statements, one round trip.

asyncpg, which is faster at single statements, has no pipeline (docs/decisions/0009).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import pq

from everloop._core.errors import StoreError, StoreUnavailable
from everloop.store.sql.dialect import Template
from everloop.store.sql.runners.postgresql_connection import Connection
from everloop.store.sql.runners.postgresql_pipe import Asked, Pipe, asked, failure, plain
from everloop.store.sql.runners.server import FULL_DISK, Collision, Held, Lost, ServerRunner
from everloop.store.sql.runners.thread import Fault
from everloop.store.sql.spelling import Folding, parameters_of
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement

log = logging.getLogger("everloop")

#: The channel on which every worker listens for calls that are ready.
READY = "ever_ready"
#: What another transaction did to ours, by SQLSTATE: begin anew.
_COLLISIONS = {
    "23505",  # unique_violation: the same id, or lane, was added at the same time
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "55P03",  # lock_not_available
}
#: Of these: it had to wait.
_HELD = "55P03"
#: The server is there, and will serve again: no resources, a time limit, a read-only standby.
_PASSING = ("25006", "53", "57014", "58")
#: The server has ended the connection: a shutdown, an administrator, a time limit of its own.
_ENDED = ("08", "25P03", "25P04", "57P")
_NOTIFY = """
SELECT set_config('synchronous_commit', 'off', true), pg_notify(c, '')
FROM unnest(string_to_array($1, ',')) AS c
"""
_RING = _NOTIFY.replace("$1", "concat_ws(',', nullif($1, ''), nullif(current_setting('everloop.rung'), ''))")
_COMMIT, _DISCARD = plain("COMMIT"), plain("DISCARD PLANS")
_NOT_DURABLE = plain("SET LOCAL synchronous_commit = off")


class PostgresRunner(ServerRunner[Connection]):
    """Runs verbs on one connection to PostgreSQL."""

    dialect = "postgresql"
    _straight = True
    _compound = True

    def __init__(self, connect: Callable[[], Connection], name: str, fault: Fault | None) -> None:
        self._pipe: Pipe | None = None
        self._begun = False  # a transaction, in the server
        super().__init__(connect, name, fault)

    def _connect(self) -> Connection:
        connection = super()._connect()
        self._straight = not connection.pooled  # what such turns set has to last beyond their commit
        return connection

    def _disconnect(self, connection: Connection) -> None:
        self._pipe = None
        connection.close()

    def _begin_transaction(self, connection: Connection) -> None:  # noqa: ARG002 - BEGIN goes with a query
        self._begun = False

    def _execute(self, connection: Connection, kept: list[tuple[Statement, Template]]) -> list[Any]:
        first = self._first(connection)
        replies = self._ask(connection, [*first, *_asked(kept)], names(kept))[len(first) :]
        self._begun = True
        return self._rows(connection, kept, replies)

    def _first(self, connection: Connection) -> list[Asked]:
        """Return what begins a transaction that has not begun."""
        return [] if self._begun else beginning(connection, self._pipe_of(connection))

    def _commit(
        self,
        connection: Connection,
        kept: list[tuple[Statement, Template]],
        scope: Scope,
        *,
        durable: bool,
        behind: int = 0,  # noqa: ARG002 - a query takes no time to speak of before the commit, either
    ) -> list[Any]:
        if not self._begun and self._pipe_of(connection).has_ended():
            # Before anything is sent: of what was sent with a commit nobody knows whether it was received.
            lost = Lost("the connection to PostgreSQL is lost: the server has ended it while it was idle")
            lost.unsent = True
            raise lost
        first = self._first(connection)
        sent, commit = committing(first, kept, scope, durable=durable)
        replies = self._ask(connection, sent, names(kept) or "COMMIT", until=commit)
        return self._rows(connection, kept, replies[len(first) :])

    def wake(self, connection: Connection, scope: Scope) -> None:
        self._ask(connection, _notify(scope), "NOTIFY")

    def _ask(
        self, connection: Connection, sent: list[Asked], doing: str, until: int | None = None
    ) -> list[pq.abc.PGresult]:
        """Execute statements in one round trip; `until` counts those that must not fail.

        Raises:
            StoreError: One has failed, or the connection is lost.
        """
        self.trips += 1
        with explained(doing):
            replies = self._pipe_of(connection).ask(sent)
            check(replies, until)
        return replies

    def _pipe_of(self, connection: Connection) -> Pipe:
        if self._pipe is None:
            self._pipe = Pipe(connection)
        return self._pipe

    def _rows(
        self,
        connection: Connection,
        kept: list[tuple[Statement, Template]],
        replies: list[pq.abc.PGresult],
    ) -> list[Any]:
        return rows_of(self._pipe_of(connection), kept, replies)

    def _roll_back(self, connection: Connection) -> None:
        with explained("ROLLBACK"):
            connection.execute("ROLLBACK")


def beginning(connection: Connection, pipe: Pipe) -> list[Asked]:
    """Return what begins a transaction."""
    opening = [plain(statement) for statement in connection.opening]
    return [*opening, _DISCARD] if not connection.pooled and pipe.outgrown() else opening


def committing(
    first: list[Asked], kept: list[tuple[Statement, Template]], scope: Scope, *, durable: bool
) -> tuple[list[Asked], int]:
    """Return what begins with `first`, commits, and rings; and how many of these must not fail."""
    last = [] if durable else [_NOT_DURABLE]
    sent = [*first, *_asked(kept), *last, _COMMIT]
    return [*sent, *_notify(scope)], len(sent)


def check(replies: list[pq.abc.PGresult], until: int | None) -> None:
    """See that no statement has failed; `until` counts those that must not.

    Raises:
        psycopg.Error: One has.
    """
    error = failure(replies[:until])
    if error is not None:
        raise error
    if (error := failure(replies)) is not None:
        # It is committed, and only nobody was woken: who was not looks before long.
        log.debug("everloop: committed, but nobody was woken: %s", error)


def rows_of(pipe: Pipe, kept: list[tuple[Statement, Template]], replies: list[pq.abc.PGresult]) -> list[Any]:
    """Return the rows of each statement, None for what is no query."""
    return [
        pipe.rows(reply) if template.columns else None
        for (_, template), reply in zip(kept, replies, strict=False)
    ]


def names(kept: list[tuple[Statement, Template]]) -> str:
    """Return what an error says was being done."""
    return ", ".join(statement.name for statement, _ in kept)


def _asked(kept: list[tuple[Statement, Template]]) -> list[Asked]:
    with explained(names(kept)):
        return [asked(statement, template) for statement, template in kept]


def _notify(scope: Scope) -> list[Asked]:
    channels = [f"ever_{session}" for session in scope.rung if session != scope.session]
    channels += [READY] if scope.ready else []
    # Whom `settle_straight` has told nobody here knows yet: it says so to the server.
    if scope.rings:
        return [plain(_RING, ",".join(channels))]
    # After the commit, a transaction of its own: a NOTIFY holds a lock that all notifiers of the server want
    # until its commit is on disk. This one need not be.
    return [plain(_NOTIFY, ",".join(channels))] if channels else []


class explained:  # noqa: N801 - a `with` phrase
    """Turns psycopg's errors into ours: what failed, and whether it may pass."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        """Watch the block."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, psycopg.Error):
            raise explain(error, self._doing) from error


def explain(error: psycopg.Error, doing: str) -> StoreError:
    """Return our error for one of psycopg's."""
    state = error.sqlstate
    said = str(error).strip().partition("\n")[0]
    if state is None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return Lost(f"the connection to PostgreSQL is lost ({doing}): {said}")
        return StoreError(f"PostgreSQL failed ({doing}): {said}")
    if state in _COLLISIONS:
        kind = Held if state == _HELD else Collision
        return kind(f"PostgreSQL ended this transaction for another one ({doing}): {said} ({state})")
    if state.startswith(_ENDED):
        return Lost(f"PostgreSQL ended the connection ({doing}): {said} ({state})")
    if state.startswith(_PASSING):
        full = FULL_DISK if state == "53100" else ""
        return StoreUnavailable(f"PostgreSQL cannot go on now ({doing}): {said} ({state}){full}")
    return StoreError(f"PostgreSQL failed ({doing}): {said} ({state})")


def _rows_by_hand(_template: Template, rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(row) for row in rows]


def _explain_by_hand(error: BaseException, doing: str) -> StoreError:
    """Return our error for one of whichever driver, in a transaction of the user's."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""
    said = str(error).strip().partition("\n")[0]
    kind = StoreUnavailable if state in _COLLISIONS or state.startswith(_PASSING) else StoreError
    return kind(f"PostgreSQL failed in your transaction ({doing}): {said}" + (f" ({state})" if state else ""))


#: For a connection of the user's, of whichever driver.
BY_HAND = Folding(
    "postgresql", lambda template, _: (template.sql,), parameters_of, _rows_by_hand, _explain_by_hand
)
