"""The thresholds, all of them.

`GATES` hold on any machine: each is a bound on the ratio of a figure to the limit measured beside it, round
by round, in the same run. They leave room for a noisy machine: about half as much again as is usual.
`KEPT` is what has to be left of each of these ratios, whatever it is: a change that slows something down
within its gate is noticed by that.
`TARGETS` are what we aim at on the machine that `docs/performance.md` describes; they are shown as met or
not, and gate nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.figures import Figure


@dataclass(frozen=True)
class Bound:
    """`least` or `most` so much; with the reason for the number."""

    kind: Literal["least", "most"]
    value: float
    reason: str = ""

    def holds(self, value: float) -> bool:
        return value >= self.value if self.kind == "least" else value <= self.value


def least(value: float, reason: str = "") -> Bound:
    return Bound("least", value, reason)


def most(value: float, reason: str = "") -> Bound:
    return Bound("most", value, reason)


_SERVED = "four transactions with wider rows and more indexes, two processes; the limit does its bare parts"
_SUBMITTED = "three tables' worth of rows and indexes, and making the calls; the limit inserts into one"
_ANSWERED = "four transactions of up to three round trips each against two commits"
_UNWOUND = "each generation: a cancellation and an outcome, a hundred bodies to wake, on two cores"
_OPEN = "what has gone is passed over once in ten times"
_FINISHED = "a finished call is in no index that a claim reads"

#: Bounds on ratios to the limit of the same round.
GATES: Mapping[str, Bound] = {
    "calls": least(
        0.1, "a call crosses two processes, four transactions and a codec; the limit does its bare parts"
    ),
    "calls.client_cpu": most(
        10, "an asyncio task of its own, a future, a record, two codecs, and its share of SQL"
    ),
    "calls.worker_cpu": most(12, "the same on the other side: a lease, a context, a task, a settlement"),
    "many.submit": least(0.15, "one transaction per thousand or two; what is left is making the calls"),
    "many": least(0.1, "like calls, without a waiting asyncio task for each"),
    "embedded": least(0.07, "client and worker share one interpreter, and so one core"),
    "drain": least(0.15, "the worker's half of calls, with nobody in its way"),
    "latency": most(8, "four transactions and eight wake-ups of sleeping threads against two of each"),
    "within": most(6, "the same without crossing processes"),
    "cancel": most(10, _UNWOUND),
    "sleeps": most(4.5, "thousands of leases and outcomes around a tenth of a second of sleep"),
    "sleeps.within": most(5, "the same in one process"),
    "programs.p6": most(
        1.05, "the longest sleep decides; what comes on top is opening a store and two turns"
    ),
    "programs.p7": most(1.05, "the same"),
    "programs.p8": most(1.05, "the same"),
    "due": least(1 / 1.5, "a call of the future is in no index that a claim reads"),
    "strangers": least(1 / 1.5, "the ready index is cut by function: a claim never walks over strangers"),
    "due.memory": most(
        1.25, "a worker holds what it runs; beyond it there is SQLite's page cache, at most 64 MiB"
    ),
    "strangers.memory": most(1.25, "the same"),
    "postgresql.calls": least(0.15, _SERVED),
    "postgresql.submit": least(0.25, _SUBMITTED),
    "postgresql.many": least(0.15, _SERVED),
    "postgresql.latency": most(10, _ANSWERED),
    "postgresql.cancel": most(15, _UNWOUND),
    "postgresql.open": most(3, _OPEN),
    "postgresql.finished": least(1 / 1.5, _FINISHED),
    "mariadb.calls": least(0.15, _SERVED),
    "mariadb.submit": least(0.2, _SUBMITTED),
    "mariadb.many": least(0.15, _SERVED),
    "mariadb.latency": most(13, _ANSWERED),
    "mariadb.cancel": most(20, _UNWOUND),
    "mariadb.open": most(2.5, _OPEN),
    "mariadb.finished": least(1 / 1.5, _FINISHED),
    "import.app": most(4, "no web client, no SQLAlchemy, no driver: they come at first use"),
}

#: Bounds on medians, on the machine of the documentation.
TARGETS: Mapping[str, Bound] = {
    "calls": least(12_000),
    "many.submit": least(40_000),
    "drain": least(15_000),
    "latency": most(5),
    "within": most(2),
    "cancel": most(1),
    "idle": most(1),
    "sleeps": most(0.5),
    "sleeps.within": most(0.5),
    "programs.p6": most(4.1),
    "programs.p7": most(4.1),
    "programs.p8": most(4.1),
    "postgresql.calls": least(12_000),
    "postgresql.submit": least(40_000),
    "postgresql.latency": most(5),
    "postgresql.cancel": most(1),
    "postgresql.idle": most(1),
    "mariadb.calls": least(7_000),
    "mariadb.submit": least(25_000),
    "mariadb.latency": most(5),
    "mariadb.cancel": most(1),
    "mariadb.idle": most(1),
    "import": most(100),
    "import.memory": most(30),
    "import.app": most(100),
    "import.app_memory": most(30),
}

#: Bounds on medians that hold everywhere, since they are shares already.
SHARES: Mapping[str, Bound] = {
    name: most(1.0, "percent of one core: bells wake a worker, it does not poll for work")
    for name in ("idle", "postgresql.idle", "mariadb.idle")
}


#: What has to be left of each gated ratio, of what it was in the first record that has it.
KEPT = 0.9


@dataclass(frozen=True)
class Verdict:
    """Whether a figure keeps a bound."""

    figure: Figure
    value: float
    bound: Bound
    gates: bool

    @property
    def holds(self) -> bool:
        return self.bound.holds(self.value)

    @property
    def told(self) -> str:
        bound = self.bound
        return (
            f"BROKEN: {self.figure.name} is {self.value:.3g}, at {bound.kind} {bound.value:.3g} is asked: "
            f"{bound.reason}"
        )


@dataclass(frozen=True)
class Past:
    """What a ratio was, in which record, of what, against what."""

    ratio: float
    record: str
    what: str
    limit: str


@dataclass(frozen=True)
class Fall:
    """A figure beside what its ratio was."""

    figure: Figure
    ratio: float
    past: Past

    @property
    def left(self) -> float:
        """The share of the speed that is left."""
        return left(self.figure.name, self.past.ratio, self.ratio)

    @property
    def told(self) -> str:
        return (
            f"FELL: {self.figure.name} has {self.left * 100:.0f} % of its speed left, at least "
            f"{KEPT * 100:.0f} % is asked: its ratio is {self.ratio:.3g}, and was {self.past.ratio:.3g} in "
            f"bench/results/{self.past.record} ({self.figure.what}; the limit: {self.figure.limit})"
        )


def left(name: str, before: float, now: float) -> float:
    """Return the share of the speed that is left: less than 1 is slower, whichever way the figure counts."""
    return now / before if GATES[name].kind == "least" else before / now


def judge(figures: Sequence[Figure]) -> list[Verdict]:
    """Hold the figures against every bound there is for them."""
    verdicts: list[Verdict] = []
    for figure in figures:
        ratio = figure.ratio
        if figure.name in GATES and ratio is not None:
            verdicts.append(Verdict(figure, ratio, GATES[figure.name], gates=True))
        if figure.name in SHARES:
            verdicts.append(Verdict(figure, figure.median, SHARES[figure.name], gates=True))
        if figure.name in TARGETS:
            verdicts.append(Verdict(figure, figure.median, TARGETS[figure.name], gates=False))
    return verdicts


def fallen(figures: Sequence[Figure], past: Mapping[str, Past]) -> list[Fall]:
    """Return what has less than `KEPT` of its ratio left; what was measured otherwise is not compared."""
    both = [
        Fall(figure, figure.ratio, past[figure.name])
        for figure in comparable(figures, past)
        if figure.ratio is not None
    ]
    return [fall for fall in both if fall.left < KEPT]


def comparable(figures: Sequence[Figure], past: Mapping[str, Past]) -> list[Figure]:
    """Return the figures that say of the same thing what they said then."""
    return [
        figure
        for figure in figures
        if figure.name in past
        and figure.ratio is not None
        and (figure.what, figure.limit) == (past[figure.name].what, past[figure.name].limit)
    ]
