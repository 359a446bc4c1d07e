"""Run verbs on MySQL and MariaDB: all statements of a round trip are one query."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import msgspec

from everloop._core.errors import StoreError, StoreUnavailable
from everloop.store.sql.dialect import Template
from everloop.store.sql.runners.mysql_connection import MysqlConnection, passes
from everloop.store.sql.runners.server import Lost, ServerRunner
from everloop.store.sql.spelling import Folding
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement

log = logging.getLogger("everloop")

_FOR = re.compile(
    r"\{for :(?P<item>\w+) in :(?P<items>\w+), joined by (?P<joint>[^:]+):(?P<each>.*?)\}", re.DOTALL
)
_PARAMETER = re.compile(r":([a-z_]+)")
_encode = msgspec.json.Encoder().encode
#: Seconds that a listener sleeps at a time. The server only notices after it that a listener has died.
SLEEP = 30


class MysqlRunner(ServerRunner[MysqlConnection]):
    """Runs verbs on one connection to MySQL."""

    dialect = "mysql"

    def _disconnect(self, connection: MysqlConnection) -> None:
        connection.close()

    def _begin_transaction(self, connection: MysqlConnection) -> None:  # noqa: ARG002 - it goes with a query
        self._begun = False

    def _execute(self, connection: MysqlConnection, kept: list[tuple[Statement, Template]]) -> list[Any]:
        sent = [] if self._begun else [("BEGIN", "START TRANSACTION")]
        ends: list[int] = []  # behind each statement's last part, which answers
        for statement, template in kept:
            sent += [(statement.name, part) for part in render(connection, statement, template)]
            ends.append(len(sent))
        results = self._run(connection, sent)
        self._begun = True
        return [
            results[end - 1] if template.columns else None
            for end, (_, template) in zip(ends, kept, strict=True)
        ]

    def _commit(
        self,
        connection: MysqlConnection,
        kept: list[tuple[Statement, Template]],
        scope: Scope,
        *,
        durable: bool,  # noqa: ARG002 - the server has one setting for all
    ) -> None:
        sent = [] if self._begun else [("BEGIN", "START TRANSACTION")]
        for statement, template in kept:
            sent += [(statement.name, part) for part in render(connection, statement, template)]
        sent.append(("COMMIT", "COMMIT"))
        others = sorted(session for session in scope.rung if session != scope.session)
        wakes = bool(others or scope.ready)
        if wakes:
            sent.append(("bells", bells_of(connection, others, scope)))
        try:
            results = self._run(connection, sent)
        except StoreError as error:
            if not (wakes and connection.answered == len(sent) - 1):
                raise
            self._not_heard(error)
            return
        if wakes:
            try:
                self._ring(connection, [number for (number,) in results[-1]])
            except StoreError as error:
                self._not_heard(error)

    def wake(self, connection: MysqlConnection, scope: Scope) -> None:
        others = sorted(session for session in scope.rung if session != scope.session)
        if others or scope.ready:
            (found,) = self._run(connection, [("bells", bells_of(connection, others, scope))])
            self._ring(connection, [number for (number,) in found])

    def _ring(self, connection: MysqlConnection, bells: list[int]) -> None:
        """End the sleep of these connections; one that sleeps no more is passed over."""
        while bells:
            try:
                self._run(connection, [("bell", f"KILL QUERY {number:d}") for number in bells])
                return
            except Lost:
                raise
            except StoreError as error:
                log.debug("everloop: a bell did not ring: %s", error)
                bells = bells[connection.answered + 1 :]

    def _not_heard(self, error: StoreError) -> None:
        """Go on without waking anybody: it is committed, and who was not woken looks before long."""
        log.debug("everloop: committed, but nobody was woken: %s", error)
        if isinstance(error, Lost):
            self._forget()

    def _roll_back(self, connection: MysqlConnection) -> None:
        connection.run("ROLLBACK", "ROLLBACK")

    def _run(self, connection: MysqlConnection, sent: list[tuple[str, str]]) -> list[Any]:
        self.trips += 1
        return connection.run(";\n".join(sql for _, sql in sent), [name for name, _ in sent])


# -- bells --------------------------------------------------------------------------------------------------

_BELLS = """SELECT id FROM information_schema.processlist
WHERE command = 'Query' AND db = DATABASE() AND user = SUBSTRING_INDEX(USER(), '@', 1) AND ({})"""


def bell_of(session: int, *, worker: bool) -> str:
    """Return the statement with which a session's listener sleeps: what it says is how others find it."""
    return f"SELECT SLEEP({SLEEP}) /* everloop bell {session:d}{' of a worker' if worker else ''} */"


def bells_of(connection: MysqlConnection, sessions: Iterable[int], scope: Scope) -> str:
    """Return the query for the connections to wake: those of the sessions, and with `ready` all workers'.

    Numbers of connections come again after a restart of the server, so none is remembered: only who says now,
    as the same user in the same database, that it is a bell is one.
    """
    said = [bell_of(session, worker=worker) for session in sessions for worker in (False, True)]
    found = [f"info IN ({', '.join(map(connection.literal, said))})"] if said else []
    if scope.ready:
        pattern = bell_of(0, worker=True).replace(" 0 ", " % ")
        own = bell_of(scope.session or 0, worker=True)
        found.append(f"(info LIKE {connection.literal(pattern)} AND info <> {connection.literal(own)})")
    return _BELLS.format(" OR ".join(found))


# -- statements ---------------------------------------------------------------------------------------------


def render(connection: MysqlConnection, statement: Statement, template: Template) -> list[str]:
    """Return the statements that a name stands for, with the parameters in them."""

    def value(match: re.Match[str]) -> str:
        return literal(connection, statement.parameters[match[1]])

    return [_PARAMETER.sub(value, part) for part in texts_of(template, statement)]


def texts_of(template: Template, statement: Statement) -> list[str]:
    """Return the statements that a name stands for, with what is repeated written out."""

    def repeat(match: re.Match[str]) -> str:
        item, each = f":{match['item']}", match["each"].strip()
        numbers = statement.parameters[match["items"]]
        return match["joint"].join(each.replace(item, f"{number:d}") for number in numbers)

    return [_FOR.sub(repeat, part) for part in _parts(template.sql)]


@cache
def _parts(sql: str) -> tuple[str, ...]:
    return tuple(sql.split(";\n"))


def literal(connection: MysqlConnection, value: Any) -> str:
    """Write a parameter as a literal of SQL; rows travel as one JSON text, a dict as its items."""
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return f"{value:d}"
    return connection.literal(_json(value))


# -- on a connection of the user's --------------------------------------------------------------------------


def _parameters_by_hand(statement: Statement) -> dict[str, Any]:
    return {name: _json(value) for name, value in statement.parameters.items()}


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        value = list(value.items())
    return _encode(value).decode() if isinstance(value, list) else value


def _rows_by_hand(_template: Template, rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    # What is compared by its bytes comes back as bytes.
    return [[each.decode() if isinstance(each, bytes) else each for each in row] for row in rows]


def _explain_by_hand(error: BaseException, doing: str) -> StoreError:
    """Return our error for one of whichever driver, in a transaction of the user's."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    said = str(error.args[1]) if len(error.args) > 1 else str(error)
    kind = StoreUnavailable if passes(code) else StoreError
    return kind(f"MySQL failed in your transaction ({doing}): {said}" + (f" ({code})" if code else ""))


#: For a connection of the user's, of whichever driver.
BY_HAND = Folding("mysql", texts_of, _parameters_by_hand, _rows_by_hand, _explain_by_hand)
