"""Lives: a call as the list of facts that happened to it, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

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


class Run(NamedTuple):
    """A lease that has ended."""

    fence: int
    attempt: int
    how: str
    session: int | None
    started: int | None
    ended: int
    error: Any


def look(birth: NewCall, facts: Iterable[Fact]) -> Look:
    """Compute what a call looks like after these facts."""
    now = Look("unborn", 0)
    for word, at, detail in facts:
        now = _WORDS[word](now, birth, at, detail)
    return now


def _born(now: Look, birth: NewCall, at: int, waits: object) -> Look:
    due = birth.due or at + birth.delay
    return replace(now, due=due, state="waiting" if waits else "scheduled" if due > at else "ready")


def _leased(now: Look, _: NewCall, at: int, session: int) -> Look:
    return replace(now, state="leased", fence=now.fence + 1, session=session, started=at)


def _settled(now: Look, birth: NewCall, at: int, outcome: Outcome) -> Look:
    how = str(outcome.event)
    if how == "reap":
        return _bereft(now, birth, at, outcome.error)
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


def _given_back(now: Look, _: NewCall, at: int, __: Any) -> Look:
    return _back(now, at, 0) if now.asked is None else _stopped(now, "cancelled", at)


def _bereft(now: Look, birth: NewCall, at: int, last_words: Any) -> Look:
    now = replace(now, crashes=now.crashes + 1)
    if now.asked is not None:
        return _stopped(now, "cancelled", at)
    if now.crashes > birth.crash_limit:
        return _stopped(now, "failed", at, last_words or Like(b"TaskCrashed"))
    return _back(now, at, 0)


def _back(now: Look, at: int, delay: int) -> Look:
    state, due = ("scheduled", at + delay) if delay else ("ready", now.due)
    return replace(now, state=state, due=due, fence=now.fence + 1, session=None)


def _stopped(now: Look, word: str, at: int, error: Any = None) -> Look:
    return replace(now, state=word, ended=at, fence=now.fence + 1, error=error, outside=True)


#: What each fact does to the look of a call.
_WORDS: dict[str, Callable[[Look, NewCall, int, Any], Look]] = {
    "born": _born,
    "awaited call ended": lambda now, _, at, __: replace(now, state="scheduled" if now.due > at else "ready"),
    "fell due": lambda now, _, __, ___: replace(now, state="ready"),
    "leased": _leased,
    "wanted": lambda now, _, __, fence: replace(now, wanted=fence),
    "progress": lambda now, _, __, progress: replace(now, progress=progress),
    "asked to cancel": lambda now, _, __, message: replace(now, asked=message),
    "settled": _settled,
    "given back": _given_back,
    "worker died": _bereft,
    "cancelled": lambda now, _, at, __: _stopped(now, "cancelled", at),
    "value dropped": lambda now, _, __, ___: replace(now, value=None),
    "expired": lambda now, _, at, __: _stopped(now, "expired", at, Like(b"TaskExpired")),
}


def runs(birth: NewCall, facts: Iterable[Fact]) -> list[Run]:
    """Tell how the leases ended.

    The one that was the call's outcome is kept; of the others the first five and the last fifteen, and the
    last three that were given back.
    """
    counted: list[Run] = []
    given_back: list[Run] = []
    outcome: list[Run] = []
    now = Look("unborn", 0)
    for word, at, detail in facts:
        before, now = now, _WORDS[word](now, birth, at, detail)
        if before.state != "leased" or now.state == "leased":
            continue
        error = detail.error if word == "settled" else None
        run = Run(before.fence, before.attempt + 1, "released", before.session, before.started, at, error)
        if now.crashes > before.crashes:
            counted.append(run._replace(how="crashed", error=error or now.error))
        elif now.attempt == before.attempt:
            given_back.append(run)
        elif now.live:
            counted.append(run._replace(how="failed"))
        else:
            outcome.append(run._replace(how=now.state))
    return sorted(counted[:5] + counted[5:][-15:] + given_back[-3:] + outcome, key=lambda run: run.fence)


@dataclass(eq=False)
class Life:
    """A call: how it was born, and what happened since."""

    number: int
    birth: NewCall
    born: int
    parent: Life | None = None
    pruned: bool = False
    facts: list[Fact] = field(default_factory=list[Fact])
    now: Look = field(default_factory=lambda: Look("unborn", 0))

    def add(self, word: str, at: int, detail: Any = None) -> None:
        self.facts.append((word, at, detail))
        self.now = look(self.birth, self.facts)
