"""Numbers for calls that come one by one: what a request has left of its block serves those that follow."""

from __future__ import annotations

#: Numbers that a request takes at a time where the database gives them in blocks.
BLOCK = 65_536
#: Microseconds for which a block is used up: calls of two processes stand out of order by so much at most.
FRESH = 1_000_000


class Numbers:
    """What is left of the last block that a store has taken.

    Invariant: a number is handed out once, whatever becomes of it, and is larger than all that this store has
    given to calls before.
    """

    def __init__(self) -> None:
        self._next = 0
        self._end = 0
        self._taken = 0

    def take(self, count: int, now: int) -> int | None:
        """Return the first of so many numbers; None where a new block has to be taken."""
        first = self._next
        if first + count > self._end or not 0 <= now - self._taken < FRESH:
            return None
        self._next += count
        return first

    def keep(self, first: int, used: int, now: int) -> None:
        """Keep what a request that is committed has left of its block."""
        self._next, self._end, self._taken = first + used, first + BLOCK, now

    def drop(self) -> None:
        """Keep nothing: a newer block is being taken."""
        self._end = 0
