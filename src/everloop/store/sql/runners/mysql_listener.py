"""Listen by sleeping: there is no LISTEN on MySQL, but a sleep can be ended by others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from everloop._core.errors import StoreError, StoreUnavailable
from everloop.store.sql.runners.listener import Listener
from everloop.store.sql.runners.mysql_connection import Interrupted, MysqlConnection, Rows

#: Seconds that a listener sleeps at a time. The server only notices after it that a listener has died.
SLEEP = 30


class MysqlListener(Listener):
    """Sleeps on the server, again and again; whoever commits something for the session ends the sleep.

    It holds a lock whose name says which session it is: that is how others find the connection, with one look
    instead of a search among all that the server has.

    What is committed between two sleeps finds nobody to wake, so the ring for one is given once the next has
    begun: the turn that it causes sees all that came until then.
    """

    def __init__(
        self, connect: Callable[[], MysqlConnection], session: int, wake: Callable[[], None]
    ) -> None:
        self._make = connect
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
        results: list[Rows] = []  # it has just been rung for the connection
        while connection is not None and not self._stopped.is_set():
            # MySQL says with a 1 that somebody has ended it, MariaDB with an error.
            with suppress(Interrupted):
                connection.run(f"SELECT 1;{sleep_of(self._session)}", "listening", results)
            results = _Heard(self._ring)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Heard(list[Rows]):
    """Results that tell when the first of them is there: the server has begun with what stands behind it."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, rows: Rows, /) -> None:
        if not self:
            self._tell()
        super().append(rows)


def sleep_of(session: int) -> str:
    """Return the statement with which a session's listener sleeps; it says whose it is to who looks on."""
    return f"SELECT SLEEP({SLEEP}) /* everloop bell {session:d} */"


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
