"""The ledger's app in a process that stops itself within a transaction that takes leases, once told so."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from everloop.store.sql import blocked, server_store
from everloop.store.sql.runners import mysql_connection
from everloop.store.sql.runners.postgresql import PostgresRunner
from everloop.store.sql.runners.server import ServerRunner
from tests.crash.programs.ledger import app

__all__ = ["app"]

#: Once this file is there, the next transaction stops the process; the file is taken away first.
TOLD = Path(os.environ["LEDGER"]).with_name("stop")


class Stopping(threading.local):
    """Stands in the place of what tests may make raise before each statement; each runner has its thread."""

    takes = False

    def __call__(self, name: str, _done: int) -> None:
        if name == "lease_take":
            self.takes = True
        elif name == "COMMIT":
            if self.takes and TOLD.exists():
                TOLD.unlink()
                # To this thread, which then does not run on: it has sent nothing more.
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            self.takes = False


ServerRunner._meet_fault = Stopping()  # type: ignore[method-assign]

# A turn that goes straight is sent with its commit: nobody can stop within it.
PostgresRunner._straight = property(lambda _: False, lambda _, __: None)  # type: ignore[assignment]

# Sooner than users have it.
server_store.LATE, blocked.SILENT_S = 1_000_000, 2.0
mysql_connection._SETTINGS = mysql_connection._SETTINGS.replace(
    f"idle_transaction_timeout = {mysql_connection.SILENT}", "idle_transaction_timeout = 2"
)
