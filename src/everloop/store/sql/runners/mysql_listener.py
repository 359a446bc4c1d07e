"""Listen by sleeping: there is no LISTEN on MySQL, but a sleep can be ended by others."""

from __future__ import annotations

from collections.abc import Callable

from everloop.store.sql.runners.listener import Listener
from everloop.store.sql.runners.mysql import bell_of
from everloop.store.sql.runners.mysql_connection import Interrupted, MysqlConnection


class MysqlListener(Listener):
    """Sleeps on the server, again and again; whoever commits something for the session ends the sleep.

    What is committed between two sleeps finds nobody to wake, but then the ring of the sleep before is still
    on its way: the turn that it causes sees it.
    """

    def __init__(
        self,
        connect: Callable[[], MysqlConnection],
        session: int,
        wake: Callable[[], None],
        *,
        worker: bool,
    ) -> None:
        self._make = connect
        self._sleep = bell_of(session, worker=worker)
        self._connection: MysqlConnection | None = None
        super().__init__(wake)

    def _interrupt(self) -> None:
        if (connection := self._connection) is not None:
            connection.interrupt()

    def _connect(self) -> None:
        self._connection = self._make()

    def _listen(self) -> None:
        connection = self._connection
        while connection is not None and not self._stopped.is_set():
            if self._woken(connection):
                self._ring()

    def _woken(self, connection: MysqlConnection) -> bool:
        """Sleep; tell whether somebody has ended it. MySQL answers 1 then, MariaDB with an error."""
        try:
            ((slept,),) = connection.run(self._sleep, "listening")[0]
        except Interrupted:
            return True
        return bool(slept)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
