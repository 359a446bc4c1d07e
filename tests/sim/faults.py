"""What may go wrong at a verb of the store, and when: a plan that a seed makes.

A fault is chosen where a request arrives at the store. Some are chosen by chance; the others are aimed: each
schedule draws a few cells of the matrix (verb, state before, fault) and injects that fault when that verb
meets that state for the n-th time.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    PAUSE_BEFORE = "pause before"  # the process stands still for longer than its lease, and it is carried out after
    PAUSE_AFTER = "pause after"  # it is carried out, and the process stands still before the answer
    OUTAGE = "outage"  # nothing is answered to anybody for a while, from this request on
    DRAIN = "drain"  # the process is asked to end (SIGTERM), and it is carried out


class Bell(StrEnum):
    """What may happen to a wake-up."""

    LOST = "lost"
    TWICE = "twice"
    LATE = "late"


#: How often each may happen in one schedule: each must leave time for the rest.
MOST = {
    Fault.ERROR: 8, Fault.LOST: 8, Fault.LATE: 4, Fault.DELAY: 4, Fault.CRASH_BEFORE: 2, Fault.CRASH_AFTER: 2,
    Fault.PAUSE_BEFORE: 1, Fault.PAUSE_AFTER: 1, Fault.OUTAGE: 1, Fault.DRAIN: 2,
}  # fmt: skip

Cell = tuple[str, str]


class Plan:
    """The faults of one schedule.

    Args:
        rng: Decides.
        aims: The cells with a fault that are aimed at.
        before: Those that lead there, each at the first opportunity.
    """

    def __init__(self, rng: Random, aims: Iterable[tuple[Cell, Fault]], before: Iterable[tuple[Cell, Fault]] = ()) -> None:
        self._rng = rng
        self._aims: dict[Cell, list[tuple[int, Fault]]] = {}
        for cell, fault in before:
            self._aims.setdefault(cell, []).append((1, fault))
        for cell, fault in aims:
            self._aims.setdefault(cell, []).append((rng.choice((1, 1, 1, 1, 2)), fault))
        self._left = dict(MOST)
        self.chance = rng.choice((0.0, 0.0, 0.01, 0.03, 0.08))
        kinds = rng.sample(list(Fault), rng.randint(1, len(Fault)))
        self._kinds = [kind for kind in Fault if kind in kinds]
        self.bells = rng.choice((0.0, 0.1, 0.5))
        self.over = False

    def draw(self, cells: Iterable[Cell], allowed: Iterable[Fault]) -> Fault | None:
        """Return what happens to a request that is these cells."""
        if self.over:
            return None
        aimed = [fault for cell in cells if (fault := self._aimed(cell)) is not None]
        for fault in aimed:
            if fault in allowed:
                return fault
        if self._rng.random() < self.chance:
            fault = self._rng.choice(self._kinds)
            if self._may(fault, allowed):
                return fault
        return None

    def _aimed(self, cell: Cell) -> Fault | None:
        aims = self._aims.get(cell)
        if not aims:
            return None
        self._aims[cell] = [(number - 1, fault) for number, fault in aims if number > 1]
        return next((fault for number, fault in aims if number == 1), None)

    def _may(self, fault: Fault, allowed: Iterable[Fault]) -> bool:
        if fault not in allowed or not self._left[fault]:
            return False
        self._left[fault] -= 1
        return True

    def bell(self) -> Bell | None:
        """Return what happens to a wake-up."""
        if self.over or not self.bells or self._rng.random() >= self.bells:
            return None
        return self._rng.choice(list(Bell))
