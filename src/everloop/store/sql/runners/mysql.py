"""Run verbs on MySQL and MariaDB: all statements of a round trip are one query."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from everloop._core.errors import StoreError, StoreUnavailable
from everloop.store.sql.dialect import Template
from everloop.store.sql.runners.mysql_bells import Bells, Rings, Sent
from everloop.store.sql.runners.mysql_connection import MysqlConnection, passes
from everloop.store.sql.runners.mysql_texts import in_json, render, texts_of, unfolded
from everloop.store.sql.runners.server import Lost, ServerRunner
from everloop.store.sql.runners.thread import Fault
from everloop.store.sql.spelling import Folding
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement

log = logging.getLogger("everloop")

#: Characters of a transaction that goes as one block: a larger one would be slower so.
SMALL = 16_384


class _Whole(NamedTuple):
    """What ends a transaction.

    Attributes:
        sent: All that is left of it, with its commit.
        names: What each of its results is about; once they are there, it is committed.
        ends: How many of them there are once each kept statement has answered.
        rings: Bells that it leaves for afterwards.
        early: Whether it rings idle workers by itself.
    """

    sent: list[Sent]
    names: list[str]
    ends: list[int]
    rings: Rings
    early: bool = False


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
    ) -> tuple[list[Sent], list[int]]:
        """Return all statements by name, and how many results there are once each kept one has answered."""
        sent, ends = _written(connection, kept)
        if self._begun:
            return sent, ends
        return [_BEGIN, *sent], [end + 1 for end in ends]

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
        whole = self._whole(connection, kept[:before], scope)
        committed = len(whole.names)
        bells = [*([_HEARD] if whole.early else []), *whole.rings.idle, *whole.rings.told]
        last, seen = _written(connection, kept[before:])
        results: list[Any] = []
        try:
            behind_it = bells + last + whole.rings.look
            self._run(connection, whole.sent + behind_it, results, [*whole.names, *_names(behind_it)])
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
                if whole.early and results[committed] != [(1,)]:  # somebody has ended: who is there now?
                    self._bells.ring(connection, scope)
                else:
                    self._bells.ring_rest(connection, scope, whole.rings.look, results)
            except StoreError as error:
                self._stop_waking(error)
        return [*_rows(kept[:before], whole.ends, results), *_rows(kept[before:], seen, looked)]

    def _whole(
        self, connection: MysqlConnection, kept: list[tuple[Statement, Template]], scope: Scope
    ) -> _Whole:
        """Return what ends the transaction; as one block, where it is small and has not begun yet."""
        rings = self._bells.statements(connection, scope)
        sent, ends = self._sent(connection, kept)
        if self._begun or not connection.is_mariadb or sum([len(sql) for _, sql in sent]) > SMALL:
            sent.append(_COMMIT)
            return _Whole(sent, _names(sent), ends, rings)
        # Only queries answer, each when it is done, and then the block.
        ends = [*accumulate([1 if template.columns else 0 for _, template in kept], initial=0)]
        name = ", ".join(dict.fromkeys([statement.name for statement, _ in kept]))
        early = connection.shows_early and bool(rings.idle)
        if early:
            sent.append(_early(rings.idle))
            rings = rings._replace(idle=[])
        block = name, _block([*sent, _COMMIT])
        return _Whole([block], [name] * (ends[-1] + 1), ends[1:], rings, early)

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
        self,
        connection: MysqlConnection,
        sent: list[Sent],
        results: list[Any] | None = None,
        names: list[str] | None = None,
    ) -> list[Any]:
        self.trips += 1
        return connection.run(";\n".join([sql for _, sql in sent]), names or _names(sent), results)


_BEGIN: Sent = ("BEGIN", "START TRANSACTION")
_COMMIT: Sent = ("COMMIT", "COMMIT")
#: Whether all bells within a block have rung.
_HEARD: Sent = ("bell", "SELECT @ever_heard")


def _block(sent: list[Sent]) -> str:
    """Return one statement that does them all; where one fails, those behind it are not executed.

    MariaDB answers it once. Each answer of its own costs both sides a wake-up: a tenth of what a transaction
    takes.
    """
    body = ";\n".join([sql for _, sql in sent])
    return f"BEGIN NOT ATOMIC {body}; END"


def _early(bells: list[Sent]) -> Sent:
    """Return what rings idle workers just before the commit: it is seen by the time they look.

    What they lease then cannot be on the disk before what they have seen: there is one log. A bell that fails
    must not keep the commit from being executed; it is seen behind it.
    """
    kills = "; ".join([sql for _, sql in bells])
    failed = "DECLARE CONTINUE HANDLER FOR SQLEXCEPTION SET @ever_heard = 0"
    return "bell", f"BEGIN {failed}; SET @ever_heard = 1; {kills}; END"


def _names(sent: list[Sent]) -> list[str]:
    return [name for name, _ in sent]


def _written(
    connection: MysqlConnection, kept: list[tuple[Statement, Template]]
) -> tuple[list[Sent], list[int]]:
    """Return all statements by name, and what is behind the last part of each, which answers."""
    sent: list[Sent] = []
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
