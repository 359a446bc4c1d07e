"""A transaction of the user's in which calls were added: what is known of its end."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger("everloop")


class UserTransaction:
    """What a store's `add_on` answers with: the calls are there if and only if this was committed.

    Attributes:
        database: Names the database, for messages.
        tells: Whether `on_end` will be told. A DB-API connection has no events, so nobody tells; then, and
            when a connection broke, the store is the one to ask once this is no longer open.
        committed: What was told: True after the commit, False after a rollback, None before.
    """

    def __init__(self, database: str, is_open: Callable[[], bool], *, tells: bool) -> None:
        self.database = database
        self.tells = tells
        self.committed: bool | None = None
        self._is_open: Callable[[], bool] | None = is_open
        self._callbacks: list[Callable[[bool], None]] = []

    @property
    def is_open(self) -> bool:
        """Whether it may still be committed, as far as can be seen here."""
        return self._is_open is not None and self._is_open()

    def on_end(self, callback: Callable[[bool], None]) -> None:
        """Call `callback(committed)` after the end, in the thread that ends it; at once when it has ended."""
        if self.committed is None:
            self._callbacks.append(callback)
        else:
            callback(self.committed)

    def end(self, *, committed: bool) -> None:
        """Note the end, and tell it; the user's commit has succeeded, whatever a callback does."""
        if self.committed is not None:
            return
        self.committed = committed
        self._is_open = None  # lets go of the connection
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(committed)
            except Exception:
                log.exception("everloop: what follows the end of a transaction on %s failed", self.database)
