"""Wake who listens on MySQL: end the sleep of its connection, in the round trip of the commit.

Numbers of connections come again after a restart of the server, so none is remembered: a session's is the one
that holds the lock of its name, and the server finds it as it ends its sleep.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from everloop._core.errors import StoreError
from everloop.store.sql.runners.mysql_connection import MysqlConnection
from everloop.store.sql.runners.server import Lost
from everloop.store.sql.verbs.scope import Scope

log = logging.getLogger("everloop")

#: A statement, and its name for messages.
Sent = tuple[str, str]
#: Sends statements in one round trip, and returns the rows of each.
Run = Callable[[MysqlConnection, list[Sent]], list[Any]]
#: Seconds between two looks for workers while some are known; a new one polls as often.
LOOK_S = 1.0
#: Sessions that are remembered as quiet, at most.
_MOST = 1_000
_LOOK = "SELECT session, kind = 'worker', IS_USED_LOCK(CONCAT({}, session)) FROM ever_sessions WHERE {}"


class Rings(NamedTuple):
    """What wakes whom a scope names.

    Attributes:
        idle: Wakes workers that may find a call.
        told: Wakes those that are told something.
        look: A look for the others, at most one.
    """

    idle: list[Sent]
    told: list[Sent]
    look: list[Sent]


class Bells:
    """What is known of who listens, so that most rings need no look before.

    Args:
        run: Sends statements.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._workers: set[int] = set()  # those that listened as they were looked for
        self._quiet: set[int] = set()  # sessions that did not, and may have ended
        self._look_at = 0.0  # when workers are looked for again

    def statements(self, connection: MysqlConnection, scope: Scope) -> Rings:
        """Return what wakes whom the scope names as far as they are known, and a look for the others."""
        idle = (self._workers if scope.ready else set()) - scope.rung - {scope.session}
        told = scope.rung - {scope.session}
        quiet = (idle | told) & self._quiet
        late = scope.ready and (not self._workers or time.monotonic() >= self._look_at)
        look = [_look(connection, quiet, scope)] if quiet or late else []
        return Rings(_kills(connection, idle - quiet), _kills(connection, told - quiet), look)

    def ring_rest(
        self, connection: MysqlConnection, scope: Scope, look: list[Sent], results: list[Any]
    ) -> None:
        """Wake who was found by the look, where it was sent: last.

        Raises:
            Lost: The connection is.
        """
        if look:
            rung = {*scope.rung, *self._workers} - self._quiet
            self._ring(connection, self._heard(scope, set(), results[-1], rung))

    def ring(self, connection: MysqlConnection, scope: Scope) -> None:
        """Look for everybody whom the scope names, and wake them.

        Raises:
            StoreError: The look failed.
        """
        rung = scope.rung - {scope.session}
        if rung or scope.ready:
            (found,) = self._run(connection, [_look(connection, rung, scope)])
            self._ring(connection, self._heard(scope, rung, found, set()))

    def _heard(
        self, scope: Scope, asked: Collection[int], found: list[tuple[int, int, int | None]], rung: set[int]
    ) -> list[int]:
        """Remember who listens; return the connections of those that have not been rung yet."""
        listening = {session for session, _, number in found if number is not None}
        if scope.ready:
            self._workers = {session for session, worker, _ in found if worker and session in listening}
            self._look_at = time.monotonic() + LOOK_S
        self._quiet = (self._quiet | set(asked)) - listening if len(self._quiet) < _MOST else set()
        passed = {*rung, scope.session}
        return [number for session, _, number in found if number is not None and session not in passed]

    def _ring(self, connection: MysqlConnection, numbers: list[int]) -> None:
        """End the sleep of these connections; one that is gone is passed over."""
        while numbers:
            try:
                self._run(connection, [("bell", f"KILL QUERY {number:d}") for number in numbers])
                return
            except Lost:
                raise
            except StoreError as error:
                log.debug("everloop: a bell did not ring: %s", error)
                numbers = numbers[connection.answered + 1 :]


def _kills(connection: MysqlConnection, sessions: Iterable[int]) -> list[Sent]:
    return [("bell", f"KILL QUERY IS_USED_LOCK({connection.bell(session)})") for session in sorted(sessions)]


def _look(connection: MysqlConnection, sessions: Collection[int], scope: Scope) -> Sent:
    """Return the query for these sessions, and perhaps all workers': on which connection each listens."""
    wanted = [f"session IN ({', '.join(map(str, sorted(sessions)))})"] if sessions else []
    if scope.ready:
        wanted.append("kind = 'worker'")
    return "bells", _LOOK.format(connection.bell(""), " OR ".join(wanted))
