"""How long finished calls are kept, as a store is asked to mind it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from everloop._core.errors import TaskNotFound
from everloop._core.ids import is_id

#: What an id looks like.
_EXAMPLE = "0198c0de-0000-7000-8000-000000000001"
#: Microseconds after its end in which no call is pruned, however many there are: somebody may yet ask.
RECENT = 60_000_000
#: Microseconds for which it is known at least where a session was: a call may run for long.
SESSIONS = 7 * 86_400_000_000


def not_found(id_: object, keep: str | None) -> TaskNotFound:
    """Return the error for an id that no call has.

    Args:
        id_: The id.
        keep: The rule by which calls are pruned, in words; None when none is, or when it is not known.
    """
    text = str(id_)
    if not is_id(text):
        return TaskNotFound(f"no call has the id {text!r} (an id looks like {_EXAMPLE})")
    rule = "" if keep is None else f": {keep} (see App(keep=))"
    return TaskNotFound(f"no call has the id {text!r}; it was not submitted here, or it was pruned{rule}")


class Pruning(msgspec.Struct, frozen=True):
    """What is kept for too long; ages are microseconds since the end of a call, None is for ever.

    Attributes:
        app: Whose calls.
        calls: Age of those that succeeded.
        failed: Age of the others.
        results: Age of values; None is as long as their call.
        logs: Age of what runs have logged; None is as long as their call.
        count: How many finished calls are kept, the newest ones.
        every: A sweep begins only when none has begun within so many microseconds.
        after: Where a sweep goes on; None begins one.
        bound: Of that sweep: up to which call there are more than `count`.
    """

    app: str
    calls: int | None = None
    failed: int | None = None
    results: int | None = None
    logs: int | None = None
    count: int | None = None
    every: int = 0
    after: int | None = None
    bound: int = 0

    def behind(self, after: int, *, bound: int | None = None) -> Pruning:
        """Return the request for what stands behind a call."""
        return msgspec.structs.replace(self, after=after, bound=self.bound if bound is None else bound)

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever kept for too long: then there is no sweep."""
        return self.youngest is None and self.count is None

    @property
    def youngest(self) -> int | None:
        """The smallest of the ages."""
        ages = [age for age in (self.calls, self.failed, self.results, self.logs) if age is not None]
        return min(ages, default=None)

    @property
    def sessions(self) -> int | None:
        """The age up to which it is known where a session was, for the runs of the calls that are kept."""
        if self.calls is None or self.failed is None:
            return None
        return max(self.calls, self.failed, SESSIONS)

    def is_over(self, age: int, *, succeeded: bool) -> bool:
        """Tell whether a call that ended so long ago is kept for too long."""
        limit = self.calls if succeeded else self.failed
        return limit is not None and age >= limit


class Pruned(NamedTuple):
    """The answer: what is gone, and how the sweep goes on; None when it is over, or was not due."""

    calls: int = 0
    results: int = 0
    next: Pruning | None = None
