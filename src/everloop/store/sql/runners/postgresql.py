"""Run verbs on PostgreSQL with psycopg, in its pipeline mode: many statements, one round trip.

asyncpg, which is faster at single statements, has no pipeline (docs/decisions/0009).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec
import psycopg
from psycopg.types.numeric import Int8

from everloop._core.errors import StoreError, StoreUnavailable
from everloop.store.sql.dialect import Template
from everloop.store.sql.runners.postgresql_connection import Connection
from everloop.store.sql.runners.server import FULL_DISK, Collision, Lost, ServerRunner
from everloop.store.sql.spelling import Folding
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement

Cursor = psycopg.Cursor[tuple[Any, ...]]

log = logging.getLogger("everloop")

#: The channel on which every worker listens for calls that are ready.
READY = "ever_ready"
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
#: What another transaction did to ours, by SQLSTATE: begin anew.
_COLLISIONS = {
    "23505",  # unique_violation: the same id, or lane, was added at the same time
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "55P03",  # lock_not_available
}
#: The server is there, and will serve again: no resources, a time limit, a read-only standby.
_PASSING = ("25006", "53", "57014", "58")
#: The server has ended the connection: a shutdown, an administrator, a time limit of its own.
_ENDED = ("08", "25P03", "25P04", "57P")
_encode = msgspec.json.Encoder().encode


class PostgresRunner(ServerRunner[Connection]):
    """Runs verbs on one connection to PostgreSQL."""

    dialect = "postgresql"
    #: Round trips after which plans are made anew.
    _replan = 16

    def _disconnect(self, connection: Connection) -> None:
        connection.close()

    def _begin_transaction(self, connection: Connection) -> None:  # noqa: ARG002 - BEGIN goes with a query
        self._begun = False

    def _execute(self, connection: Connection, kept: list[tuple[Statement, Template]]) -> list[Any]:
        cursors: list[Cursor] = []

        def send_all() -> None:
            if not self._begun:
                connection.begin()
                if not connection.pooled and self._outgrown():
                    connection.execute("DISCARD PLANS")
            cursors.extend(send(connection, statement, template) for statement, template in kept)

        self._together(connection, _names(kept), send_all)
        self._begun = True
        return [
            cursor.fetchall() if template.columns else None
            for cursor, (_, template) in zip(cursors, kept, strict=True)
        ]

    def _outgrown(self) -> bool:
        """Whether this runner has done as much again as when its plans were last made.

        A prepared statement keeps its plan: one that was made while a table was small reads all of it, and
        goes on so when that is a million rows, until somebody analyses the table.
        """
        if self.trips < self._replan:
            return False
        self._replan = 2 * self.trips
        return True

    def _commit(
        self, connection: Connection, kept: list[tuple[Statement, Template]], scope: Scope, *, durable: bool
    ) -> None:
        commits: list[Cursor] = []

        def send_all() -> None:
            if not self._begun:
                connection.begin()
            for statement, template in kept:
                send(connection, statement, template)
            if not durable:
                connection.execute("SET LOCAL synchronous_commit = off")
            commits.append(connection.execute("COMMIT"))
            _notify(connection, scope)

        try:
            self._together(connection, _names(kept) or "COMMIT", send_all)
        except StoreError as error:
            if not commits or commits[0].statusmessage != "COMMIT":
                raise
            # It is committed, and only nobody was woken: who was not looks before long.
            log.debug("everloop: committed, but nobody was woken: %s", error)
            self._forget()

    def wake(self, connection: Connection, scope: Scope) -> None:
        self._together(connection, "NOTIFY", lambda: _notify(connection, scope))

    def _together(self, connection: Connection, doing: str, send_all: Callable[[], None]) -> None:
        """Execute what `send_all` sends in one round trip."""
        self.trips += 1
        # The end of the block syncs and waits. A sync of our own before it would be a second round trip.
        with explained(doing), connection.pipeline():
            send_all()

    def _roll_back(self, connection: Connection) -> None:
        with explained("ROLLBACK"):
            connection.execute("ROLLBACK")


def _names(kept: list[tuple[Statement, Template]]) -> str:
    return ", ".join(statement.name for statement, _ in kept)


def _notify(connection: Connection, scope: Scope) -> None:
    channels = [f"ever_{session}" for session in scope.rung if session != scope.session]
    channels += [READY] if scope.ready else []
    if channels:
        # After the commit, in a transaction of its own: a NOTIFY holds a lock that all notifiers of the
        # server want until its commit is on disk. This one need not be.
        connection.execute("BEGIN")
        connection.execute("SET LOCAL synchronous_commit = off")
        connection.execute("SELECT pg_notify(c, '') FROM unnest(%s::text[]) AS c", (channels,))
        connection.execute("COMMIT")


def send(connection: Connection, statement: Statement, template: Template) -> Cursor:
    """Execute a statement of the dialect's file."""
    return connection.execute(_text(template.sql), parameters_of(statement), prepare=True)


@cache
def _text(sql: str) -> bytes:
    return _PARAMETER.sub(r"%(\1)s", sql.replace("%", "%%")).encode()


def parameters_of(statement: Statement) -> dict[str, Any]:
    """Return what is bound to a statement; rows travel as one JSON text, and every integer is a bigint."""
    return {name: _bound(value) for name, value in statement.parameters.items()}


def _bound(value: Any) -> Any:
    if isinstance(value, list | dict):
        return _encode(value).decode()
    return Int8(value) if isinstance(value, int) else value


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
        return Collision(f"PostgreSQL ended this transaction for another one ({doing}): {said} ({state})")
    if state.startswith(_ENDED):
        return Lost(f"PostgreSQL ended the connection ({doing}): {said} ({state})")
    if state.startswith(_PASSING):
        full = FULL_DISK if state == "53100" else ""
        return StoreUnavailable(f"PostgreSQL cannot go on now ({doing}): {said} ({state}){full}")
    return StoreError(f"PostgreSQL failed ({doing}): {said} ({state})")


def _rows_by_hand(_template: Template, rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(row) for row in rows]


def _parameters_by_hand(statement: Statement) -> dict[str, Any]:
    return {
        name: _encode(value).decode() if isinstance(value, list | dict) else value
        for name, value in statement.parameters.items()
    }


def _explain_by_hand(error: BaseException, doing: str) -> StoreError:
    """Return our error for one of whichever driver, in a transaction of the user's."""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""
    said = str(error).strip().partition("\n")[0]
    kind = StoreUnavailable if state in _COLLISIONS or state.startswith(_PASSING) else StoreError
    return kind(f"PostgreSQL failed in your transaction ({doing}): {said}" + (f" ({state})" if state else ""))


#: For a connection of the user's, of whichever driver.
BY_HAND = Folding(
    "postgresql", lambda template, _: (template.sql,), _parameters_by_hand, _rows_by_hand, _explain_by_hand
)
