"""The counts of a pool."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """The pool of one loop, now.

    Attributes:
        size: Connections that are open, in use or not.
        in_use: Connections that are taken.
        waiting: Scopes that wait for one, because all are taken.
        timeouts: Scopes that waited for too long, since the pool was opened.
    """

    size: int = 0
    in_use: int = 0
    waiting: int = 0
    timeouts: int = 0
