"""Listen for NOTIFY; behind a pooler, where that cannot be, be silent."""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable
from functools import cache

from everloop.store.sql.runners.listener import Listener
from everloop.store.sql.runners.postgresql import READY, explained
from everloop.store.sql.runners.postgresql_connection import Connection

log = logging.getLogger("everloop")


class PostgresListener(Listener):
    """Waits for what is notified to a session, and to all workers if it is one."""

    def __init__(
        self, connect: Callable[[], Connection], session: int, wake: Callable[[], None], *, worker: bool
    ) -> None:
        self._make = connect
        self._channels = [f"ever_{session}", *([READY] if worker else [])]
        self._connection: Connection | None = None
        self._read, self._write = os.pipe()
        super().__init__(wake)

    def stop(self) -> None:
        super().stop()
        if self._read >= 0:
            os.close(self._read)
            os.close(self._write)
            self._read = -1

    def _interrupt(self) -> None:
        if self._read >= 0:
            os.write(self._write, b"x")

    def _connect(self) -> None:
        connection = self._connection = self._make()
        if connection.pooled:
            _tell(f"{connection.info.host}:{connection.info.port}")
            self._disconnect()
            return
        with explained("LISTEN"):
            for channel in self._channels:
                connection.execute(f"LISTEN {channel}".encode())

    def _listen(self) -> None:
        connection = self._connection
        if connection is None:  # behind a pooler
            self._stopped.wait()
            return
        while not self._stopped.is_set():
            readable, _, _ = select.select([connection.fileno(), self._read], [], [])
            if self._read in readable:
                return
            with explained("listening"):
                connection.pgconn.consume_input()
                heard = False
                while connection.pgconn.notifies() is not None:
                    heard = True
            if heard:
                self._ring()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@cache  # once in a process
def _tell(place: str) -> None:
    log.warning(
        "everloop: the store's URL leads to a pooler (%s), where nobody can listen: what other processes "
        "commit is found by looking, once a second. A URL of the server itself is quicker",
        place,
    )
