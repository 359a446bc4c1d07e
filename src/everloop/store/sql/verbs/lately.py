"""Looks for what was submitted lately, in place of looks at all calls that are ready.

A server keeps in an index what has gone from it for as long as a transaction is open, anybody's, that might
still see it: an entry at least for each call that was leased since. A look at all passes over every one of
them. Where that takes long, most looks go by the order of submission instead, and begin behind a call that
was leased a moment ago: what they pass over does not grow.

What they do not see is what came back, as calls do that are tried again. Behind a turn that brings one back
there is soon a look at all; and so there is before long in any case. See docs/decisions/0020.
"""

from __future__ import annotations

from msgspec.structs import replace

from everloop._core.records import Lane, Turn, TurnAnswer

#: Microseconds which a look at all may take before it is avoided.
SLOW = 2_000
#: For so many times as long as it has taken it is avoided then, and for so many microseconds at most.
TIMES, MOST = 9, 1_000_000
#: Microseconds between the moment at which a transaction takes its numbers and its commit, as a rule.
COMMIT = 500_000
#: Microseconds without a turn after which no look begins behind what was leased before.
OLD = 10_000_000


class Lately:
    """What a store remembers of the looks of its session. All of it may be wrong, at the cost of some time.

    Args:
        disorder: Microseconds by which calls of two processes may have their numbers out of order.
    """

    def __init__(self, disorder: int = 0) -> None:
        self._back = disorder + COMMIT  # a look goes back by so much at least
        # The last look at all: what of (roots or not, and lanes), when, and how long it took.
        self._of: tuple[bool, tuple[Lane, ...]] = (False, ())
        self._began = self._cost = 0
        self._all_at = 0  # when it is looked at all again
        self._useless = 0  # until when: this way was not much quicker
        # The largest numbers of calls that were leased in this period, the last one, and that before; or 0.
        self._newest = self._newer = self._begin = 0
        self._period = 0  # when this one began

    def since(self, now: int, request: Turn) -> int | None:
        """Return the number behind which a turn looks; None where it looks at all."""
        passed = now - self._period
        if not 0 <= passed < self._back:
            # What was leased longer ago is no place to begin: rows of strangers may lie behind it, and many.
            fresh = 0 <= passed < OLD
            self._begin, self._newer = (self._newer, self._newest) if fresh else (0, 0)
            self._newest, self._period = 0, now
        if request.room <= 0 or self._of != (request.roots, request.lanes):
            return None
        return self._begin if self._begin and now < self._all_at <= now + MOST else None

    @property
    def avoids(self) -> bool:
        """Whether looks at all are avoided, but for those of turns that look at everything."""
        return bool(self._all_at and self._begin)

    @property
    def due_from(self) -> int:
        """From when calls that are due must be looked for: earlier ones were, and were made ready."""
        return self._began - self._back

    def hurry(self) -> None:
        """Note that something came back: all are looked at soon; half of the time is left to other looks."""
        self._all_at = min(self._all_at, self._began + 2 * self._cost)

    def leased(self, numbers: list[int]) -> None:
        """Note the numbers of calls that were leased."""
        self._newest = max(self._newest, *numbers, 0)

    def looked(self, request: Turn, since: int | None, began: int, ended: int, found: int) -> None:
        """Note a look: when it was, and how many calls it has found."""
        took, filled = ended - began, found >= request.room
        if since is None:
            self._of, self._began, self._cost = (request.roots, request.lanes), began, took
            useless = ended < self._useless <= ended + MOST
            # Where there is more than was looked for, what has gone is soon behind what is there.
            slow = took >= SLOW and not (filled or useless)
            self._all_at = ended + min(TIMES * took, MOST) if slow else 0
        elif filled:
            self._all_at = 0
        elif 4 * took > 3 * self._cost:
            self._all_at, self._useless = 0, ended + MOST

    def looked_and_took(self, now: int, took: int) -> None:
        """Note how long a look for what was submitted lately has taken, with the commit of what it found."""
        if took > self._cost:
            self._all_at, self._useless = 0, now + MOST

    def after(self, since: int | None, now: int, answer: TurnAnswer) -> TurnAnswer:
        """Return the answer to a turn, with the time when it must be looked at all."""
        if since is not None:
            due = self._all_at if answer.next_due is None else min(self._all_at, answer.next_due)
            return replace(answer, next_due=due)
        if answer.next_due is not None and answer.next_due <= now:
            self._all_at = 0  # not all that is due has been made ready
        return answer
