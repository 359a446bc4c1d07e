"""Lives: a call as the list of facts that happened to it, and what they come to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from everloop._core.records import NewCall, Outcome

LIVE = ("waiting", "scheduled", "ready", "leased")


@dataclass(frozen=True)
class Like:
    """Equal to any text or payload that has `part` in it: what a store may word as it likes."""

    part: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self.part)) and self.part in other

    def __hash__(self) -> int:
        return hash(self.part)


@dataclass(frozen=True)
class Look:
    """What the facts of one call come to."""

    state: str
    due: int
    fence: int = 0
    attempt: int = 0
    crashes: int = 0
    session: int | None = None
    started: int | None = None
    ended: int | None = None
    asked: Any = None  # the message of a cancellation that was asked
    wanted: int = 0  # the parent's fence when it last asked for this child
    outside: bool = False  # it ended, and not by its own body
    value: Any = None
    error: Any = None
    progress: Any = None

    @property
    def live(self) -> bool:
        return self.state in LIVE


Fact = tuple[str, int, Any]


def look(birth: NewCall, facts: Iterable[Fact]) -> Look:
    """Compute what a call looks like after these facts."""
    now = Look("unborn", 0)
    for word, at, detail in facts:
        now = _after(now, birth, word, at, detail)
    return now


def _after(now: Look, birth: NewCall, word: str, at: int, detail: Any) -> Look:
    match word:
        case "born":
            due = birth.due or at + birth.delay
            return replace(now, due=due, state="waiting" if detail else "scheduled" if due > at else "ready")
        case "awaited call ended":
            return replace(now, state="scheduled" if now.due > at else "ready")
        case "fell due":
            return replace(now, state="ready")
        case "leased":
            return replace(now, state="leased", fence=now.fence + 1, session=detail, started=at)
        case "wanted":
            return replace(now, wanted=detail)
        case "progress":
            return replace(now, progress=detail)
        case "asked to cancel":
            return replace(now, asked=detail)
        case "settled":
            return _after_settled(now, at, detail)
        case "given back":
            return _back(now, at, 0) if now.asked is None else _stopped(now, "cancelled", at)
        case "worker died":
            return _after_death(replace(now, crashes=now.crashes + 1), birth, at)
        case "cancelled":
            return _stopped(now, "cancelled", at)
        case "expired":
            return _stopped(now, "expired", at, Like(b"TaskExpired"))
        case _:
            raise ValueError(f"the oracle knows no fact {word!r}")


def _after_settled(now: Look, at: int, outcome: Outcome) -> Look:
    how = str(outcome.event)
    if how == "release":
        if now.asked is not None:
            return _stopped(now, "cancelled", at, outcome.error)
        return _back(now, at, outcome.delay)
    now = replace(now, attempt=now.attempt + 1)
    if how == "retry" and now.asked is None:
        return _back(now, at, outcome.delay)
    word = {"succeed": "succeeded", "fail": "failed", "cancel": "cancelled", "retry": "cancelled"}[how]
    value = None if how == "retry" else outcome.value
    return replace(now, state=word, ended=at, value=value, error=outcome.error)


def _after_death(now: Look, birth: NewCall, at: int) -> Look:
    if now.asked is not None:
        return _stopped(now, "cancelled", at)
    if now.crashes > birth.crash_limit:
        return _stopped(now, "failed", at, Like(b"TaskCrashed"))
    return _back(now, at, 0)


def _back(now: Look, at: int, delay: int) -> Look:
    state, due = ("scheduled", at + delay) if delay else ("ready", now.due)
    return replace(now, state=state, due=due, fence=now.fence + 1, session=None)


def _stopped(now: Look, word: str, at: int, error: Any = None) -> Look:
    return replace(now, state=word, ended=at, fence=now.fence + 1, error=error, outside=True)


@dataclass
class Life:
    """A call: how it was born, and what happened since."""

    number: int
    birth: NewCall
    born: int
    facts: list[Fact] = field(default_factory=list[Fact])
    now: Look = field(default_factory=lambda: Look("unborn", 0))

    def add(self, word: str, at: int, detail: Any = None) -> None:
        self.facts.append((word, at, detail))
        self.now = look(self.birth, self.facts)
