"""The checkup: what may be wrong with a store, its workers, and the calls that wait there."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from everloop._core.looks import Backlog, SessionLook, Vitals
from everloop._core.text import near_miss

Level = Literal["ok", "note", "wrong"]

#: Microseconds that a loop may take to answer before it is worth a note, and before something is wrong.
LAG, STALLED = 500_000, 5_000_000
#: Of the memory that a worker may hold.
NEARLY = 0.9
#: What to do about a loop that is blocked.
BLOCKED = (
    "write code that blocks as `def` (it runs in a thread) or with run='process'; after 5 s the worker's log "
    "shows the line"
)
#: Microseconds: of a clock's difference; for which a call may be ready; for which a session may be there
#: after its end; since the last sweep.
SKEW, LATE, UNREAPED, UNSWEPT = 5_000_000, 60_000_000, 5_000_000, 3600_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: "ok", "note" (worth knowing), or "wrong".
        where: What was looked at.
        what: What was found there.
        do: What to do about it; nothing when it is well.
    """

    level: Level
    where: str
    what: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a store told.

    Attributes:
        now: The store's instant.
        functions: Names of the app's task functions; None when no app is known.
        command: What starts a worker.
        finished: How many calls have ended.
        keep: The rule by which they are pruned, in words; None when none are.
        swept: When the last sweep began.
    """

    now: int
    vitals: Vitals
    sessions: list[SessionLook]
    serving: Collection[tuple[str, str]]
    backlog: list[Backlog]
    functions: Collection[str] | None
    command: str
    finished: int
    keep: str | None
    swept: int | None


def examine(facts: Facts) -> list[Finding]:
    """Judge what a store told, in the order in which it is read."""
    return [
        *_database(facts.vitals),
        *_workers(facts),
        *_gauges(facts),
        *_waiting(facts),
        *_sessions(facts),
        *_keeping(facts),
    ]


def _database(vitals: Vitals) -> Iterator[Finding]:
    for setting in vitals.settings:
        if setting.value.lower() == setting.wanted.lower():
            yield Finding("ok", "setting", f"{setting.name} is {setting.value}")
        else:
            found = f"{setting.name} is {setting.value or 'not known'}: {setting.risk}"
            yield Finding("wrong", "setting", found, f"set {setting.name} to {setting.wanted}")
    if abs(vitals.ahead) > SKEW:
        side = "ahead of" if vitals.ahead > 0 else "behind"
        told = f"the database's clock is {abs(vitals.ahead) / 1e6:.0f} s {side} this machine's"
        yield Finding("wrong", "clock", told, "synchronise both (NTP)")
    else:
        yield Finding("ok", "clock", "the database's clock and this machine's agree")


def _workers(facts: Facts) -> Iterator[Finding]:
    alive = [s for s in facts.sessions if s.kind == "worker" and s.until > facts.now]
    queues = sorted({queue for queue, _ in facts.serving})
    if alive:
        held = sum(session.leased for session in alive)
        told = (
            f"{_count(len(alive), 'worker')} in the queues {', '.join(queues)}, with {_count(held, 'call')}"
        )
        yield Finding("ok", "workers", told)
    else:
        level: Level = "wrong" if facts.backlog else "note"
        yield Finding(level, "workers", "no worker is running", f"run {facts.command}")


def _gauges(facts: Facts) -> Iterator[Finding]:
    """Judge what the living workers told of themselves."""
    told = [(s, s.gauges) for s in facts.sessions if s.gauges and s.kind == "worker" and s.until > facts.now]
    calm = True
    for session, gauges in told:
        who = f"the worker on {session.host} (session {session.number}, pid {session.pid})"
        if gauges.lag > LAG:
            calm = False
            level: Level = "wrong" if gauges.lag > STALLED else "note"
            what = f"{who} let others wait for {gauges.lag / 1e6:.1f} s: something blocks its event loop"
            yield Finding(level, "gauges", what, BLOCKED)
        if gauges.memory_limit is not None and gauges.memory > NEARLY * gauges.memory_limit:
            calm = False
            held, limit = gauges.memory / 1e6, gauges.memory_limit / 1e6
            what = f"{who} holds {held:,.0f} MB of {limit:,.0f} MB, and is replaced beyond that"
            yield Finding("note", "gauges", what, "look for what keeps growing, or raise --max-memory")
    if told and calm:
        lag, memory = max(g.lag for _, g in told), max(g.memory for _, g in told)
        what = f"loops answer within {lag / 1e3:.0f} ms, and no worker holds more than {memory / 1e6:,.0f} MB"
        yield Finding("ok", "gauges", what)


def _waiting(facts: Facts) -> Iterator[Finding]:
    ready = sum(each.ready for each in facts.backlog)
    served = [each for each in facts.backlog if (each.lane.queue, each.lane.fn) in facts.serving]
    for each in facts.backlog:
        if each in served:
            continue
        age = _age(facts.now - each.oldest)
        lane = f"{each.lane.fn!r} in queue {each.lane.queue!r}"
        what = f"no worker serves {lane}: {_count(each.ready, 'ready call')}, the oldest for {age}"
        yield Finding("wrong", "waiting", what, _who_serves(facts, each))
    oldest = min((each.oldest for each in served), default=facts.now)
    if facts.now - oldest > LATE:
        told = f"{_count(ready, 'call')} are ready, the oldest for {_age(facts.now - oldest)}"
        yield Finding("note", "waiting", told, "start more workers, or give them more `--concurrency`")
    elif len(served) == len(facts.backlog):
        yield Finding("ok", "waiting", f"{_count(ready, 'call')} ready, none for long")


def _who_serves(facts: Facts, each: Backlog) -> str:
    if facts.functions is None or each.lane.fn in facts.functions:
        return f"run {facts.command} --queues {each.lane.queue}"
    return (
        f"the app has no task function {each.lane.fn!r}{near_miss(each.lane.fn, facts.functions)}; give the "
        f"one that takes its place aliases=[{each.lane.fn!r}], or cancel the calls"
    )


def _sessions(facts: Facts) -> Iterator[Finding]:
    over = [s for s in facts.sessions if facts.now - s.until > UNREAPED]
    for session in over:
        age = _age(facts.now - session.until)
        what = (
            f"session {session.number} ({session.kind}, {session.host}, pid {session.pid}) ended {age} ago "
            f"and still holds {_count(session.leased, 'call')}"
        )
        level: Level = "wrong" if session.leased else "note"
        yield Finding(level, "leases", what, f"any process of the app takes them over: run {facts.command}")
    if not over:
        yield Finding("ok", "leases", "no session is overdue")


def _keeping(facts: Facts) -> Iterator[Finding]:
    size = f"{_count(facts.finished, 'finished call')} in {facts.vitals.size / 1e6:,.1f} MB"
    if facts.functions is None:
        yield Finding("ok", "keeping", size)
    elif facts.keep is None:
        yield Finding("note", "keeping", f"{size}, kept for ever", "App(keep=Keep()) prunes old ones")
    elif facts.swept is None or facts.now - facts.swept > UNSWEPT:
        ago = "never pruned" if facts.swept is None else f"last pruned {_age(facts.now - facts.swept)} ago"
        yield Finding("note", "keeping", f"{size}; {facts.keep}; {ago}", f"run {facts.command}, which prunes")
    else:
        ago = f"last pruned {_age(facts.now - facts.swept)} ago"
        yield Finding("ok", "keeping", f"{size}; {facts.keep}; {ago}")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _age(microseconds: int) -> str:
    seconds = max(0, microseconds) / 1e6
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
