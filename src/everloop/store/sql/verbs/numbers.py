"""Numbers for calls that come one by one: what a request has left of its block serves those that follow."""

from __future__ import annotations

#: Numbers that a request takes at a time where the database gives them in blocks.
BLOCK = 65_536
#: Microseconds for which a block is used up: calls of two processes stand out of order by so much at most.
FRESH = 1_000_000


class Numbers:
    """What is left of the last block that a store has taken.

    Invariant: a number is handed out once, whatever becomes of it; and it is larger than those of all calls
    that this store has added and told of before.
    """

    def __init__(self) -> None:
        self._next = 0
        self._end = 0
        self._taken = 0
        self._newest = 0  # the first of the newest block that was used up at once

    def take(self, count: int, now: int) -> int | None:
        """Return the first of so many numbers; None where a new block has to be taken."""
        first = self._next
        old = first < self._newest or not 0 <= now - self._taken < FRESH
        if old or first + count > self._end:
            return None
        self._next += count
        return first

    def keep(self, first: int, used: int, now: int) -> None:
        """Keep what a request that is committed has left of its block."""
        self._next, self._end, self._taken = first + used, first + BLOCK, now

    def pass_by(self, first: int) -> None:
        """Note a block of which nothing is kept: what is left of older ones is not used any more.

        It may be noted in another thread than the one that takes.
        """
        self._newest = max(self._newest, first)
