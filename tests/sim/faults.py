"""What may go wrong at a verb of the store, and when: a plan that a seed makes.

A fault is chosen where a request arrives at the store. Some are chosen by chance; the others are aimed: each
schedule draws a cell of the matrix (verb, state before) and lets faults happen whenever that verb meets that
state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from random import Random


class Fault(StrEnum):
    """What happens to a request that has arrived."""

    ERROR = "error"  # it is not carried out, and an error is answered
    LOST = "lost"  # it is carried out, and an error is answered
    LATE = "late"  # an error is answered, and it is carried out after that
    DELAY = "delay"  # it, or its answer, takes long
    CRASH_BEFORE = "crash before"  # the process that asks is killed, and it is not carried out
    CRASH_AFTER = "crash after"  # it is carried out, and the process is killed before the answer
    PAUSE_BEFORE = (
        "pause before"  # the process stands still for longer than its lease, and it is carried out after
    )
    PAUSE_AFTER = "pause after"  # it is carried out, and the process stands still before the answer
    OUTAGE = "outage"  # nothing is answered to anybody for a while, from this request on
    DRAIN = "drain"  # the process is asked to end (SIGTERM), and it is carried out


class Bell(StrEnum):
    """What may happen to a wake-up."""

    LOST = "lost"
    TWICE = "twice"
    LATE = "late"


#: After these the process that asks goes on as if nothing were.
SOFT = (Fault.ERROR, Fault.LOST, Fault.LATE, Fault.DELAY)
#: After these it does not; what differs only in its moment counts as one.
HARD = (
    (Fault.CRASH_BEFORE, Fault.CRASH_AFTER),
    (Fault.PAUSE_BEFORE, Fault.PAUSE_AFTER),
    (Fault.OUTAGE,),
    (Fault.DRAIN,),
)
#: The columns of the matrix.
KINDS: tuple[tuple[Fault, ...], ...] = (*((fault,) for fault in SOFT), *HARD)

#: How often each may happen by chance in one schedule: each must leave time for the rest.
MOST = {
    Fault.ERROR: 8, Fault.LOST: 8, Fault.LATE: 4, Fault.DELAY: 4, Fault.CRASH_BEFORE: 2, Fault.CRASH_AFTER: 2,
    Fault.PAUSE_BEFORE: 1, Fault.PAUSE_AFTER: 1, Fault.OUTAGE: 1, Fault.DRAIN: 2,
}  # fmt: skip

Cell = tuple[str, str]


class Plan:
    """The faults of one schedule.

    Args:
        rng: Decides.
        aims: What happens to the requests that are these cells, one after the other.
        who: The kind of process whose requests they are, or nothing for any.
    """

    def __init__(self, rng: Random, aims: Iterable[tuple[Cell, Sequence[Fault]]], who: str) -> None:
        self._rng = rng
        self._who = who
        self._aims: dict[Cell, deque[Fault]] = {}
        for cell, faults in aims:
            self._aims.setdefault(cell, deque()).extend(faults)
        self._verbs = _verbs(self._aims)
        self._left = dict(MOST)
        self.chance = rng.choice((0.0, 0.0, 0.01, 0.03, 0.08))
        kinds = rng.sample(list(Fault), rng.randint(1, len(Fault)))
        self._kinds = [kind for kind in Fault if kind in kinds]
        self.bells = rng.choice((0.0, 0.1, 0.5))
        self.over = False

    def strikes(self, verb: str) -> tuple[bool, bool]:
        """Tell whether something may happen to a request because it is aimed at, and whether by chance."""
        return verb in self._verbs, bool(self.chance) and self._rng.random() < self.chance

    def draw(
        self, cells: Iterable[Cell], allowed: Collection[Fault], kind: str, *, by_chance: bool
    ) -> Fault | None:
        """Return what happens to a request that is these cells, of a process of that kind."""
        for cell in cells if kind == (self._who or kind) else ():
            faults = self._aims.get(cell)
            if faults and faults[0] in allowed:
                fault = faults.popleft()
                self._verbs = _verbs(cell for cell, left in self._aims.items() if left)
                return fault
        if by_chance:
            fault = self._rng.choice(self._kinds)
            if self._may(fault, allowed):
                return fault
        return None

    def _may(self, fault: Fault, allowed: Collection[Fault]) -> bool:
        if fault not in allowed or not self._left[fault]:
            return False
        self._left[fault] -= 1
        return True

    def bell(self) -> Bell | None:
        """Return what happens to a wake-up."""
        if self.over or not self.bells or self._rng.random() >= self.bells:
            return None
        return self._rng.choice(list(Bell))


#: Verbs of which each request is a cell with a name like that of the verb; all others are of turns.
_ALONE = (
    *("open", "tend", "renew", "serve", "reap", "serving", "cancel", "wait", "get"),
    *("open session", "close session"),
)


def _verbs(cells: Iterable[Cell]) -> frozenset[str]:
    """Return the verbs of the store whose requests may be these cells."""
    found: set[str] = set()
    for name, _ in cells:
        verb = name.partition(" (")[0]
        found.update([verb.replace(" ", "_")] if verb in _ALONE else ["turn", "add"])
    return frozenset(found)
