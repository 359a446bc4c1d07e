"""Slots: how many bodies of a worker run, how many are suspended, and how much room is left."""

from __future__ import annotations

#: Suspended bodies that a worker holds at most, per slot, before it takes no more roots.
SUSPENDED_PER_SLOT = 8


class Slots:
    """Counts of one worker.

    A body takes its slot back without waiting when its last pending child ends, so `running` may
    exceed `size` for a while: the worker then leases less.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.running = 0
        self.suspended = 0
        self.most_suspended = 0  # since the start: shown, and tested

    @property
    def room(self) -> int:
        """How many calls may be leased now."""
        return max(0, self.size - self.running)

    @property
    def takes_roots(self) -> bool:
        """Whether a call that no suspended body waits for may be leased."""
        return self.suspended < SUSPENDED_PER_SLOT * self.size

    def start(self) -> None:
        self.running += 1

    def end(self) -> None:
        self.running -= 1

    def suspend(self) -> None:
        self.running -= 1
        self.suspended += 1
        self.most_suspended = max(self.most_suspended, self.suspended)

    def resume(self) -> None:
        self.suspended -= 1
        self.running += 1
