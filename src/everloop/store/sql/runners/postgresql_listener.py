"""Listen for NOTIFY; behind a pooler, where that cannot be, be silent.

The thread connects, and gives the connection to the loop (`Direct`), until that has lost it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from everloop._core.errors import StoreError
from everloop.store.sql.runners.listener import Listener
from everloop.store.sql.runners.postgresql import READY, explained
from everloop.store.sql.runners.postgresql_connection import Connection
from everloop.store.sql.runners.postgresql_direct import Direct

log = logging.getLogger("everloop")

#: Poolers of which it was said that nobody can listen behind them, each with a mark of who said so.
_told: dict[str, object] = {}


class PostgresListener(Listener):
    """Waits for what is notified to a session, and to all workers if it is one."""

    def __init__(
        self, connect: Callable[[], Connection], session: int, wake: Callable[[], None], *, worker: bool
    ) -> None:
        self._make = connect
        self._channels = [f"ever_{session}", *([READY] if worker else [])]
        self._lock = threading.Lock()
        # Invariant: that of the thread, until the loop has taken it.
        self._connection: Connection | None = None
        self._error: StoreError | None = None  # with which the loop has lost it
        #: What the loop has taken.
        self.direct: Direct | None = None
        self._read, self._write = os.pipe()
        super().__init__(wake)

    def stop(self) -> None:
        super().stop()
        self._disconnect()
        if self.direct is not None:
            self.direct.end()
            self.direct = None
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
        if self._connection is None:  # behind a pooler
            self._stopped.wait()
            return
        self._post(self._take)
        if self._stopped.is_set():
            return  # while it connected, which nobody has waited for
        os.read(self._read, 1)  # until it is lost, or nobody wants it
        if (error := self._error) is not None:
            self._error = None
            raise error

    def _disconnect(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # -- on the loop ------------------------------------------------------------------------------------

    def _take(self) -> None:
        with self._lock:
            if self._stopped.is_set() or self._connection is None:
                return  # the thread closes it
            connection, self._connection = self._connection, None
        self.direct = Direct(connection, self._wake, self._lost)

    def _lost(self, error: StoreError) -> None:
        self.direct, self._error = None, error
        self._interrupt()


def _tell(place: str) -> None:
    """Say it once in a process, whichever thread comes first; `setdefault` is one step."""
    mine = object()
    if _told.setdefault(place, mine) is not mine:
        return
    log.warning(
        "everloop: the store's URL leads to a pooler (%s), where nobody can listen: what other processes "
        "commit is found by looking, once a second. A URL of the server itself is quicker",
        place,
    )
