"""What a verb knows around its request: the instant, the lanes, and who must be woken after commit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from everloop._core.clock import Clock
from everloop._core.records import Ended, Lane

if TYPE_CHECKING:
    from everloop.store.sql.verbs.alone import Alone
    from everloop.store.sql.verbs.lately import Lately
    from everloop.store.sql.verbs.numbers import Numbers


@dataclass
class Scope:
    """One transaction's surroundings.

    Attributes:
        session: The session that asks, if one does.
        lanes: Numbers of all lanes that the request names.
        names: The same the other way round.
        rung: Sessions whose inbox has grown.
        rings: Whether the database itself knows whom the last statements have told (`settle_straight`).
        ready: Whether calls became ready, so that workers should look.
        scheduled: Whether calls became scheduled, or ended while they were: the next due time may be another.
        started: What this turn leases without looking for it, as the picking statements would give it.
        returned: Whether calls that may have expired came back to the queue.
        back: Whether calls came back to the queue that were submitted earlier: they stand anywhere in it.
        crowded: Whether calls were held for a moment that are left to others.
        borrowed: Whether this is a transaction of the user's, which may stay open: it holds no parents.
        straight: Whether turns may go straight (see `straight`): set by a runner whose database can, until
            the transaction has met another one.
        compound: Whether one statement of the database may do what takes several on others. Where it may not,
            only what a client adds goes straight.
        alone: What is remembered of single calls, where turns of one go by themselves (see `alone`).
        lately: What is remembered of looks, where looks at all may take long (see `lately`).
        since: The number behind which this turn looks for calls; None where it looks at all.
        spare: Numbers that are left of earlier requests, where the database gives them in blocks.
        unchanged: Whether what has been committed so far has changed nothing.
        told: Ends that the asking session is told of in the answer itself; None when the answer has no
            place for them.
    """

    clock: Clock
    session: int | None = None
    lanes: dict[Lane, int] = field(default_factory=dict[Lane, int])
    names: dict[int, Lane] = field(default_factory=dict[int, Lane])
    rung: set[int] = field(default_factory=set[int])
    rings: bool = False
    ready: bool = False
    scheduled: bool = False
    returned: bool = False
    back: bool = False
    crowded: bool = False
    borrowed: bool = False
    straight: bool = False
    compound: bool = False
    alone: Alone | None = None
    lately: Lately | None = None
    since: int | None = None
    spare: Numbers | None = None
    unchanged: bool = False
    started: list[list[Any]] = field(default_factory=list[list[Any]])
    told: list[Ended] | None = None

    def numbers(self, lanes: Iterable[Lane]) -> frozenset[int]:
        """Return the numbers of these lanes."""
        return frozenset([self.lanes[lane] for lane in lanes])

    def pass_by(self, first: int) -> None:
        """Note that a newer block of numbers was taken than what is left of earlier requests."""
        if self.spare is not None:
            self.spare.pass_by(first)

    def leased(self, numbers: list[int]) -> None:
        """Note the numbers of calls that were leased."""
        if self.lately is not None:
            self.lately.leased(numbers)

    def come_back(self) -> None:
        """Note that calls may have come back to the queue, in whatever state."""
        self.ready = self.scheduled = self.returned = self.back = True

    def has_woken(self) -> None:
        """Note that whoever was to be woken by a commit has been: what follows begins anew."""
        self.ready = False
        self.rung.clear()

    @property
    def due_from(self) -> int:
        """From when this turn looks for calls that are due: a look at all has seen those before."""
        return 0 if self.lately is None or self.since is None else self.lately.due_from

    @cached_property
    def now(self) -> int:
        """The transaction's instant: read once it has begun, however long it waited for the lock."""
        return self.clock.now()
