"""Listen by sleeping: there is no LISTEN on MySQL, but a sleep can be ended by others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from everloop._core.calls import State
from everloop._core.errors import StoreError, StoreUnavailable
from everloop._core.records import Ended
from everloop.store.sql.dialect import statements
from everloop.store.sql.runners.listener import Listener
from everloop.store.sql.runners.mysql_connection import Interrupted, MysqlConnection
from everloop.store.sql.runners.mysql_texts import render
from everloop.store.sql.runners.mysql_wire import Rows
from everloop.store.sql.runners.server import Lost
from everloop.store.sql.verbs.statement import Statement, blob

log = logging.getLogger("everloop")

#: Seconds that a listener sleeps at a time. The server only notices after it that a listener has died.
SLEEP = 30
#: Ends that are told at once; where there are more, a turn is on its way to them.
FEW = 8
#: Seconds without a look after one that found more, or nothing.
REST = 0.1
_NOTHING = "SELECT 1"
_SLEEP = f"SLEEP({SLEEP})"
#: On MariaDB two KILLs of one SLEEP in the same moment hold each other up for 2 s, and all sleeps of the
#: server (docs/decisions/0017). A wait for a transaction that never comes, in a domain that nobody has, does
#: not, and ends as promptly. SLEEP looks every 5 s whether its client is still there; this ends as often.
_WAIT = "MASTER_GTID_WAIT('4294967295-1-18446744073709551615', 5)"


class Foretold(NamedTuple):
    """Who hears of ends before a turn tells them.

    Attributes:
        may: Whether that is worth a look of its own: not while a turn is under way, which is going to tell.
        told: Called on the loop with them.
        after: Called on the loop behind that.
    """

    may: Callable[[], bool]
    told: Callable[[list[Ended]], None]
    after: Callable[[], None]


class Prompt(NamedTuple):
    """What is done for a session that waits for nothing but its bell.

    Attributes:
        may: Whether it does: it is then rung as soon as the sleep ends.
        after: Called on the loop once the next sleep has begun: a look must follow.
    """

    may: Callable[[], bool]
    after: Callable[[], None]


class MysqlListener(Listener):
    """Sleeps on the server, again and again; whoever commits something for the session ends the sleep.

    It holds a lock whose name says which session it is: that is how others find the connection, with one look
    instead of a search among all that the server has.

    What is committed between two sleeps finds nobody to wake, so the ring for one is given once the next has
    begun: the turn that it causes sees all that came until then. (Or at once, and another look follows.)
    """

    def __init__(
        self,
        connect: Callable[[], MysqlConnection],
        session: int,
        wake: Callable[[], None],
        foretold: Foretold | None = None,
        prompt: Prompt | None = None,
    ) -> None:
        self._make = connect
        self._foretold = foretold
        self._prompt = prompt
        self._rests_until = 0.0
        self._session = session
        self._connection: MysqlConnection | None = None
        super().__init__(wake)

    def _interrupt(self) -> None:
        if (connection := self._connection) is not None:
            connection.interrupt()

    def _connect(self) -> None:
        self._connection = self._make()
        hang_up_bell(self._connection, self._session)

    def _listen(self) -> None:
        connection = self._connection
        look, results = _NOTHING, list[Rows]()  # it has just been rung for the connection
        while connection is not None and not self._stopped.is_set():
            try:
                connection.run(f"{look};{sleep_of(self._session, connection)}", "listening", results)
            except Interrupted:  # as MariaDB says that somebody has ended it; MySQL says so with a 1
                if self._prompt is not None and self._prompt.may():
                    self._ring()
                    look, results = _NOTHING, _Heard(partial(self._follows, self._prompt))
                    continue
            except Lost:
                raise
            except StoreError as error:
                if look == _NOTHING:
                    raise
                log.debug("everloop: what has ended is told by the next turn: %s", error)
                look, results = _NOTHING, _Heard(self._rings)
                continue
            look, results = self._next_look(connection)

    def _next_look(self, connection: MysqlConnection) -> tuple[str, list[Rows]]:
        """Return what is asked before the next sleep, and who hears of the reply."""
        rests = time.monotonic() < self._rests_until
        if self._foretold is None or rests or not self._foretold.may():
            return _NOTHING, _Heard(self._rings)
        looking = Statement("inbox_look", {"session": self._session, "most": FEW + 1})
        (look,) = render(connection, looking, statements("mysql")["inbox_look"])
        return look, _Heard(self._foretell)

    def _rings(self, _: Rows) -> None:
        self._ring()

    def _follows(self, prompt: Prompt, _: Rows) -> None:
        self._post(prompt.after)

    def _foretell(self, rows: Rows) -> None:
        """Tell of the ends that have come, without a turn; ring where one has to be made now."""
        foretold = self._foretold
        if foretold is None or not 0 < len(rows) <= FEW or any(kind != "ended" for kind, *_ in rows):
            self._rests_until = time.monotonic() + REST
            self._ring()
            return
        ends = [
            Ended(id_, State(state), blob(value), blob(error), attempt)
            for _, id_, state, value, error, attempt in rows
        ]
        self._post(lambda: foretold.told(ends))
        self._post(foretold.after)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Heard(list[Rows]):
    """Results that tell when the first of them is there: the server has begun with what stands behind it."""

    def __init__(self, tell: Callable[[Rows], None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, rows: Rows, /) -> None:
        if not self:
            self._tell(rows)
        super().append(rows)


def sleep_of(session: int, connection: MysqlConnection) -> str:
    """Return the statement with which a session's listener sleeps; it says whose it is to who looks on."""
    return f"SELECT {_WAIT if connection.is_mariadb else _SLEEP} /* everloop bell {session:d} */"


def hang_up_bell(connection: MysqlConnection, session: int, patience: int = 5) -> None:
    """Take the lock by which others find the connection.

    Args:
        connection: Will sleep.
        session: Whose it is.
        patience: Seconds in which a connection that is killed has surely ended.

    Raises:
        StoreUnavailable: Somebody else has it, and keeps it.
    """
    bell = connection.bell(session)
    take = f"SELECT GET_LOCK({bell}, {{}})"
    ((taken,),) = connection.run(take.format(0), "listening")[0]
    if taken:
        return
    # The session's connection before this one, whose end the server has not noticed.
    with suppress(StoreError):  # it has just ended
        connection.run(f"KILL CONNECTION IS_USED_LOCK({bell})", "listening")
    ((taken,),) = connection.run(take.format(patience), "listening")[0]
    if not taken:
        raise StoreUnavailable(f"another connection holds the lock {bell} and keeps it; nothing rings")
