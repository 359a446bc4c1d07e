"""The ledger: what really happened in bodies and clients, noted outside of Everloop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Run:
    """One run of one body."""

    id: str
    name: str
    fence: int
    session: int | None
    node: str
    began: float
    effects: list[str] = field(default_factory=list)
    how: str = ""  # "returned", "raised", "put off", "stopped"; empty while it runs or when it was killed
    value: Any = None
    reason: str | None = None  # why it was asked to stop


@dataclass(slots=True)
class Seen:
    """What a client was told of a call."""

    client: str
    id: str
    how: str  # "value", "error", "cancelled"
    value: Any = None


@dataclass(slots=True)
class Ledger:
    """Everything that is known without asking the store."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    acknowledged: dict[str, str] = field(default_factory=dict)  # the id of a call, and its name
    seen: list[Seen] = field(default_factory=list)
    callbacks: list[tuple[str, str, str]] = field(
        default_factory=list
    )  # word, id of the finished call, state
    cancelled: set[str] = field(default_factory=set)  # ids that a user asked to cancel
    closed: bool = False  # what abandoned bodies do while they are swept up is of no interest

    def begin(self, run: Run) -> None:
        if not self.closed:
            self.runs.setdefault(run.id, []).append(run)

    def run(self, id: str, fence: int) -> Run | None:
        """Return the run of a lease."""
        return next((run for run in self.runs.get(id, ()) if run.fence == fence), None)
