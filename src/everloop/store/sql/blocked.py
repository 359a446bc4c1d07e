"""What the dead still hold: rows locked by a process that stands still within a transaction.

The system of a process that is stopped (SIGSTOP, a debugger, a virtual machine that was paused) answers for
it for ever, and what its open transaction has locked, nobody can take over: `reap` passes it over. Whoever
reaps therefore looks for such transactions now and then, and each dialect ends those of the store's own
connections. A transaction of the user's is never ended; it is named in the log.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping

log = logging.getLogger("everloop")

#: Seconds between two looks.
LOOK_S = 2.0
#: Seconds after the reaping of a session in which its process is looked for in any case.
AFTER_S = 30.0
#: Microseconds after which a session that is late should have been reaped.
LATE = 5_000_000
#: Seconds for which a connection of the store's own, within a transaction, may say nothing.
SILENT_S = 5.0


class Blocked:
    """When to look, and what has been said of it."""

    def __init__(self) -> None:
        self._looked = -math.inf
        self._reaped = -math.inf
        self._told: set[int] = set()

    def may_look(self, *, reaped: bool) -> bool:
        """Whether it is time for a look."""
        now = time.monotonic()
        if reaped:
            self._reaped = now
        if now - self._looked < LOOK_S:
            return False
        self._looked = now
        return True

    @property
    def somebody_died(self) -> bool:
        """Whether a session was reaped a moment ago."""
        return time.monotonic() - self._reaped < AFTER_S

    def tell(self, holders: Mapping[int, str], does: str, how: str) -> None:
        """Warn of each transaction of somebody else's that holds rows of the dead, once.

        Args:
            holders: Who it is, by the connection's number.
            does: "holds", or "may hold" where the server does not say so much.
            how: What ends the connection whose number stands for `{}`.
        """
        for number, who in holders.items():
            if number not in self._told:
                log.warning(
                    "everloop: calls of a process that has ended cannot be taken over: the transaction of "
                    "connection %d (%s) %s their rows. Commit it or roll it back; to end the connection: %s",
                    number, who, does, how.format(number),
                )  # fmt: skip
        self._told = set(holders)


def ended(number: int) -> None:
    """Say that a connection of the store's own was ended."""
    log.warning(
        "everloop: a process stands still within a transaction, for %g s or longer, and what it holds cannot "
        "be taken over; its connection %d was ended",
        SILENT_S, number,
    )  # fmt: skip
