"""Whether a worker takes calls; if not, why: it is never silently stuck."""

from __future__ import annotations

from typing import Final

from everloop.engine.session import Session
from everloop.engine.worker import Worker

#: Seconds without an answer of the store: a turn is made each second at least.
SILENT: Final = 10.0
#: Seconds without the end of any call while every slot is taken.
STUCK: Final = 300.0


class Vitals:
    """Looks at one worker; asks nothing of the store."""

    def __init__(self, session: Session, worker: Worker) -> None:
        self.session = session
        self.worker = worker

    def why_not(self) -> str:
        """Say why it takes no calls; an empty text when it would."""
        worker, turns = self.worker, self.session.turns
        if worker.draining:
            return "it is draining"
        if turns.away:
            return "the store does not answer"
        silent = turns.silence
        if silent > SILENT:
            return f"the store has not answered for {silent:.0f} s"
        if self.is_stuck:
            return (
                f"all {worker.slots.size} slots are taken, and no call has ended for {worker.stillness:.0f} s"
            )
        return ""

    @property
    def is_stuck(self) -> bool:
        """Whether every slot is taken, and nothing has ended for long."""
        return not self.worker.draining and self.worker.room == 0 and self.worker.stillness > STUCK

    def dying(self) -> str:
        """Say what keeps this process from working at all; an empty text when nothing does."""
        return "" if self.session.is_kept else "the thread that renews its leases has ended"
