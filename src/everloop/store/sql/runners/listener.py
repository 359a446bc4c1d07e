"""Listen to a database server: a thread that waits for its word, on a connection of its own.

A hint only: while the connection is away, polling is the truth, and each time it is back the listener rings
once, because words may have been missed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from everloop._core.errors import StoreError
from everloop.store.sql.runners.thread import leave

log = logging.getLogger("everloop")

#: Seconds between attempts to listen while the server is away, at most doubled each time, up to the last.
PAUSE, LONGEST = 0.1, 5.0


class Listener(ABC):
    """Calls `wake` on the loop that made it, whenever the server says so, until stopped."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._owner = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._connecting = False
        self._thread = threading.Thread(target=self._main, name="everloop-bell", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one that is still connecting ends when that does. Idempotent."""
        self._stopped.set()
        self._interrupt()
        leave(self._thread, lambda: self._connecting)

    @abstractmethod
    def _interrupt(self) -> None:
        """Make `_connect` or `_listen` return soon; called in another thread, perhaps more than once."""

    # -- in the thread --------------------------------------------------------------------------------

    @abstractmethod
    def _connect(self) -> None:
        """Connect, and be listening when it returns.

        Raises:
            StoreError: The server does not answer.
        """

    @abstractmethod
    def _listen(self) -> None:
        """Ring for each word, until interrupted.

        Raises:
            StoreError: The connection is lost.
        """

    @abstractmethod
    def _disconnect(self) -> None:
        """Close the connection, if there is one."""

    def _main(self) -> None:
        pause = PAUSE
        while not self._stopped.is_set():
            try:
                self._connecting = True
                try:
                    self._connect()
                finally:
                    self._connecting = False
                pause = PAUSE
                self._ring()
                self._listen()
            except StoreError as error:
                log.debug("everloop: nothing rings until the store is back: %s", error)
                self._stopped.wait(pause * (0.5 + random.random()))  # noqa: S311 - spreads processes
                pause = min(LONGEST, pause * 2)
            finally:
                self._disconnect()

    def _ring(self) -> None:
        self._post(self._wake)

    def _post(self, call: Callable[[], None]) -> None:
        """Have this called on the loop."""
        try:
            self._owner.call_soon_threadsafe(call)
        except RuntimeError:
            self._stopped.set()  # the owner's loop is closed
