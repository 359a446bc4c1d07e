"""Run verbs on MySQL and MariaDB: all statements of a round trip are one query."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from everloop._core.errors import StoreError, StoreUnavailable
from everloop.store.sql.dialect import Template
from everloop.store.sql.runners.mysql_bells import Bells
from everloop.store.sql.runners.mysql_connection import MysqlConnection, passes
from everloop.store.sql.runners.mysql_texts import in_json, render, texts_of, unfolded
from everloop.store.sql.runners.server import Lost, ServerRunner
from everloop.store.sql.runners.thread import Fault
from everloop.store.sql.spelling import Folding
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement

log = logging.getLogger("everloop")


class MysqlRunner(ServerRunner[MysqlConnection]):
    """Runs verbs on one connection to MySQL."""

    dialect = "mysql"
    _straight = True

    def __init__(self, connect: Callable[[], MysqlConnection], name: str, fault: Fault | None) -> None:
        self._bells = Bells(self._run)
        super().__init__(connect, name, fault)

    def _disconnect(self, connection: MysqlConnection) -> None:
        connection.close()

    def _begin_transaction(self, connection: MysqlConnection) -> None:
        self._begun = False  # it goes with a query
        connection.check_alive()

    def _execute(self, connection: MysqlConnection, kept: list[tuple[Statement, Template]]) -> list[Any]:
        sent, ends = self._sent(connection, kept)
        results = self._run(connection, sent)
        self._begun = True
        return _rows(kept, ends, results)

    def _sent(
        self, connection: MysqlConnection, kept: list[tuple[Statement, Template]]
    ) -> tuple[list[tuple[str, str]], list[int]]:
        """Return all statements by name, and what is behind the last part of each, which answers."""
        return _written(connection, kept, [] if self._begun else [("BEGIN", "START TRANSACTION")])

    def _commit(
        self,
        connection: MysqlConnection,
        kept: list[tuple[Statement, Template]],
        scope: Scope,
        *,
        durable: bool,  # noqa: ARG002 - the server has one setting for all
        behind: int = 0,
    ) -> list[Any]:
        before = len(kept) - behind
        sent, ends = self._sent(connection, kept[:before])
        sent.append(("COMMIT", "COMMIT"))
        committed = len(sent)
        bells, look = self._bells.statements(connection, scope)
        last, seen = _written(connection, kept[before:])
        results: list[Any] = []
        try:
            self._run(connection, sent + bells + last + look, results)
        except StoreError as error:
            if connection.answered < committed:
                raise
            self._go_on_waking(connection, scope, error)
            looked = results[committed + len(bells) :]
            if len(looked) < len(last):  # they stood behind a bell that did not ring
                looked = self._run(connection, last)
        else:
            looked = results[committed + len(bells) :]
            try:
                self._bells.ring_rest(connection, scope, look, results)
            except Lost as error:
                self._stop_waking(error)
        return [*_rows(kept[:before], ends, results), *_rows(kept[before:], seen, looked)]

    def _go_on_waking(self, connection: MysqlConnection, scope: Scope, error: StoreError) -> None:
        """It is committed, but the waking has failed: mostly, because one of them listens no more."""
        if not isinstance(error, Lost):
            try:
                self._bells.ring(connection, scope)
                return
            except StoreError as failed:
                error = failed
        self._stop_waking(error)

    def _stop_waking(self, error: StoreError) -> None:
        """Go on without it: it is committed, and who was not woken looks before long."""
        log.debug("everloop: committed, but not everybody was woken: %s", error)
        if isinstance(error, Lost):
            self._forget()

    def wake(self, connection: MysqlConnection, scope: Scope) -> None:
        self._bells.ring(connection, scope)

    def _roll_back(self, connection: MysqlConnection) -> None:
        connection.run("ROLLBACK", "ROLLBACK")

    def _run(
        self, connection: MysqlConnection, sent: list[tuple[str, str]], results: list[Any] | None = None
    ) -> list[Any]:
        self.trips += 1
        return connection.run(";\n".join(sql for _, sql in sent), [name for name, _ in sent], results)


def _written(
    connection: MysqlConnection,
    kept: list[tuple[Statement, Template]],
    before: Sequence[tuple[str, str]] = (),
) -> tuple[list[tuple[str, str]], list[int]]:
    """Return all statements by name, and what is behind the last part of each, which answers."""
    sent = list(before)
    ends: list[int] = []
    for statement, template in kept:
        sent += [(statement.name, part) for part in render(connection, statement, template)]
        ends.append(len(sent))
    return sent, ends


def _rows(kept: list[tuple[Statement, Template]], ends: list[int], results: list[Any]) -> list[Any]:
    """Return the rows of each statement."""
    return [
        unfolded(template, results[end - 1]) if template.columns else None
        for end, (_, template) in zip(ends, kept, strict=True)
    ]


# -- on a connection of the user's --------------------------------------------------------------------------


def _parameters_by_hand(statement: Statement) -> dict[str, Any]:
    return {name: in_json(value) for name, value in statement.parameters.items()}


def _rows_by_hand(template: Template, rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    # What is compared by its bytes comes back as bytes.
    read = [[each.decode() if isinstance(each, bytes) else each for each in row] for row in rows]
    return [*map(list, unfolded(template, read))]


def _explain_by_hand(error: BaseException, doing: str) -> StoreError:
    """Return our error for one of whichever driver, in a transaction of the user's."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    said = str(error.args[1]) if len(error.args) > 1 else str(error)
    kind = StoreUnavailable if passes(code) else StoreError
    return kind(f"MySQL failed in your transaction ({doing}): {said}" + (f" ({code})" if code else ""))


#: For a connection of the user's, of whichever driver.
BY_HAND = Folding("mysql", texts_of, _parameters_by_hand, _rows_by_hand, _explain_by_hand)
