"""Run verbs on PostgreSQL with psycopg, in its pipeline mode: many statements, one round trip.

asyncpg, which is faster at single statements, has no pipeline (docs/decisions/0009).
"""

from __future__ import annotations

import logging
import re
import select
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import Int8

from everloop._core.errors import StoreError, StoreUnavailable, StoreURLError
from everloop._core.text import without_password
from everloop.store.refusals import Door, refusal
from everloop.store.sql.dialect import Template
from everloop.store.sql.runners.server import CannotOpen, Collision, Lost, ServerRunner
from everloop.store.sql.spelling import Folding
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement

Connection = psycopg.Connection[tuple[Any, ...]]
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
#: A connection that has died is noticed, and a lock that is held for too long given up. A process that stands
#: still within a transaction (its machine sleeps, a debugger holds it) has its system answer for it for ever:
#: the server ends that one, or nobody could take over what it holds.
_SETTINGS: dict[str, Any] = {
    "autocommit": True,
    "application_name": "everloop",
    "client_encoding": "UTF8",
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "options": "-c default_transaction_isolation=read\\ committed -c lock_timeout=5s"
    " -c idle_in_transaction_session_timeout=5s -c enable_seqscan=off -c jit=off -c plan_cache_mode=force_generic_plan -c random_page_cost=0",
}
_NOTIFY = """
SELECT set_config('synchronous_commit', 'off', true), pg_notify(c, '') FROM unnest(%s::text[]) AS c
"""
_encode = msgspec.json.Encoder().encode


class PostgresRunner(ServerRunner[Connection]):
    """Runs verbs on one connection to PostgreSQL."""

    dialect = "postgresql"
    _straight = True
    _compound = True
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
                connection.execute("BEGIN")
                if self._outgrown():
                    connection.execute("DISCARD PLANS")
            cursors.extend(send(connection, statement, template) for statement, template in kept)

        self._together(connection, _names(kept), send_all)
        self._begun = True
        return _rows(cursors, kept)

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
    ) -> list[Any]:
        commits: list[Cursor] = []
        cursors: list[Cursor] = []
        if not self._begun:
            _check_alive(connection)

        def send_all() -> None:
            if not self._begun:
                connection.execute("BEGIN")
            cursors.extend(send(connection, statement, template) for statement, template in kept)
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
        return _rows(cursors, kept)

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


def _rows(cursors: list[Cursor], kept: list[tuple[Statement, Template]]) -> list[Any]:
    return [
        cursor.fetchall() if template.columns else None
        for cursor, (_, template) in zip(cursors, kept, strict=True)
    ]


def _check_alive(connection: Connection) -> None:
    """See that the server has not ended the connection while it was idle.

    Raises:
        Lost: It has. Once a commit is sent, nobody could tell whether it was received.
    """
    with explained("BEGIN"):
        # What it said last comes before its end: the second look finds that.
        while select.select([connection.fileno()], [], [], 0)[0]:
            connection.pgconn.consume_input()
            if connection.pgconn.status != pq.ConnStatus.OK:
                raise psycopg.OperationalError("the server has ended it")


def _names(kept: list[tuple[Statement, Template]]) -> str:
    return ", ".join(statement.name for statement, _ in kept)


def _notify(connection: Connection, scope: Scope) -> None:
    channels = [f"ever_{session}" for session in scope.rung if session != scope.session]
    channels += [READY] if scope.ready else []
    if channels:
        # After the commit, a transaction of its own: a NOTIFY holds a lock that all notifiers of the server
        # want until its commit is on disk. This one need not be.
        connection.execute(_NOTIFY, (channels,))


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
        return StoreUnavailable(f"PostgreSQL cannot go on now ({doing}): {said} ({state})")
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


def connector(url: str) -> Callable[[], Connection]:
    """Return what opens a connection with the settings that the store needs.

    Raises:
        StoreURLError: The URL is not one of PostgreSQL.
    """
    shown = without_password(url)
    try:
        parts: dict[str, Any] = dict(conninfo_to_dict(_for_libpq(url)))
    except psycopg.ProgrammingError as error:
        said = str(error).strip().partition("\n")[0]
        raise StoreURLError(
            f"the store URL {shown!r} cannot be read by PostgreSQL's library: {said}"
        ) from error
    port = str(parts.get("port") or "")
    door = Door(
        "postgresql", shown, _word(parts, "user"), _word(parts, "password"), _word(parts, "host"),
        int(port) if port.isdecimal() else None, _word(parts, "dbname"),
    )  # fmt: skip

    def connect() -> Connection:
        try:
            return psycopg.connect(**(_SETTINGS | parts))
        except psycopg.Error as error:
            raise CannotOpen(refusal(door, error)) from error

    return connect


def _word(parts: Mapping[str, Any], name: str) -> str | None:
    value = parts.get(name)
    return None if value is None else str(value)


def _for_libpq(url: str) -> str:
    """Write `ssl=`, as URLs for asyncpg have it, as `sslmode=`."""
    return re.sub(r"(?<=[?&])ssl=", "sslmode=", url)
