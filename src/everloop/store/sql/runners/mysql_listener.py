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
        self._nothing = self._looking = b""  # what is asked before a sleep, with the sleep
        super().__init__(wake)

    def _interrupt(self) -> None:
        if (connection := self._connection) is not None:
            connection.interrupt()

    def _connect(self) -> None:
        self._connection = connection = self._make()
        hang_up_bell(connection, self._session)
        sleep = sleep_of(self._session, connection)
        self._nothing = f"{_NOTHING};{sleep}".encode()
        self._looking = f"{self._look(connection)};{sleep}".encode()

    def _listen(self) -> None:
        connection = self._connection
        query = self._nothing
        hear: Callable[[Rows], None] = _ignore  # it has just been rung for the connection
        while connection is not None and not self._stopped.is_set():
            try:
                ended = connection.sleep(query, hear)
            except Interrupted:
                ended = True
            except Lost:
                raise
            except StoreError as error:
                if query == self._nothing:
                    raise
                log.debug("everloop: what has ended is told by the next turn: %s", error)
                query, hear = self._nothing, self._rings
                continue
            if ended and self._prompt is not None and self._prompt.may():
                self._ring()
                query, hear = self._nothing, partial(self._follows, self._prompt)
            elif self._foretells():
                query, hear = self._looking, self._foretell
            else:
                query, hear = self._nothing, self._rings

    def _foretells(self) -> bool:
        """Whether ends are looked for before the next sleep."""
        return self._foretold is not None and time.monotonic() >= self._rests_until and self._foretold.may()

    def _look(self, connection: MysqlConnection) -> str:
        """Return what looks for ends."""
        looking = Statement("inbox_look", {"session": self._session, "most": FEW + 1})
        (look,) = render(connection, looking, statements("mysql")["inbox_look"])
        return look

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


def _ignore(_: Rows) -> None:
    """Do nothing about what comes before a sleep."""


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
