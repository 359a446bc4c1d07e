"""Many schedules, what they met together, and what they had to meet."""

from __future__ import annotations

import itertools
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from tests.sim import matrix, schedule
from tests.sim.faults import KINDS, Bell, Cell, Fault
from tests.sim.schedule import Result

K = TypeVar("K")

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "test-results"
SEEDS = Path(__file__).with_name("seeds.txt")

FAULTS = tuple(Fault)
_TOTALS = ("requests", "calls", "runs", "faults", "virtual_milliseconds")

#: Schedules that are aimed at one cell, at most, when it was met too rarely.
MORE = 2_000

#: What a campaign must have seen; one that has not proves less than it says.
SOMETIMES = (
    "a body began whose lease was lost already",
    "a body blocked its loop for longer than its lease",
    "a call crashed once too often",
    "a call died that was asked to cancel",
    "a call ran again",
    "a call was cancelled that a client waited for",
    "a child's failure was forgiven",
    "a client came back for a call",
    "a client saw a failure",
    "a client waited for long enough",
    "a group failed",
    "a late outcome was refused",
    "a lease expired while its body ran",
    "a suspect was leased",
    "a wait for a child timed out",
    "a worker that had lost a parent was not let cancel its child",
    "an outcome of a session that was reaped was refused",
    "leases of a lost answer were given back",
    "the store was away",
)


#: How a failure begins that is one of these; the others are that something was done that must not be.
VERDICTS = ("lost", "undone", "stuck")

#: A line of the file of seeds: a seed, in brackets the cell it was aimed at, if any, and what it found.
_KEPT = re.compile(r"(\d+)(?: \[(.+?):(.+?)\])?  \S")


def kept_seeds() -> list[tuple[int, Cell | None]]:
    """Return the seeds that have found something once, and what they were aimed at.

    Raises:
        ValueError: A line of the file is none of a seed.
    """
    return [_read_seed(line) for line in SEEDS.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]


def _read_seed(line: str) -> tuple[int, Cell | None]:
    found = _KEPT.match(line)
    if found is None:
        raise ValueError(f"{SEEDS.name}: {line!r} is not `SEED  what it found` or `SEED [VERB:STATE]  what`")
    seed, verb, state = found.groups()
    return int(seed), (verb, state) if verb else None


@dataclass
class Campaign:
    """What some schedules have met."""

    schedules: int = 0
    seeds: list[tuple[int, int]] = field(default_factory=list)  # ranges: the first and the last of each
    totals: Counter[str] = field(default_factory=Counter)
    met: Counter[tuple[Cell, Fault]] = field(default_factory=Counter)
    bells: Counter[tuple[str, Bell]] = field(default_factory=Counter)
    sometimes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Count one schedule."""
        self.schedules += 1
        totals = self.totals
        totals["requests"] += result.requests
        totals["calls"] += result.calls
        totals["runs"] += result.runs
        totals["faults"] += sum(result.sometimes[fault] for fault in FAULTS)
        totals["virtual_milliseconds"] += round(1_000 * result.seconds)
        _count(self.met, result.met)
        _count(self.bells, result.bells)
        _count(self.sometimes, result.sometimes)
        if result.failure:
            self.failures.append((command(result.seed, result.aim), result.failure))

    def join(self, other: Campaign) -> None:
        """Count what another process has run."""
        self.schedules += other.schedules
        self.seeds = _joined([*self.seeds, *other.seeds])
        for name in ("totals", "met", "bells", "sometimes"):
            getattr(self, name).update(getattr(other, name))
        self.failures += other.failures

    def complaints(self, wanted: int) -> Iterator[str]:
        """Say what is not as it must be: failures, and what was met too rarely or never happened."""
        for repeat, failure in self.failures:
            yield f"{failure}\n    repeat it: {repeat}"
        for cell in {cell for cell, _ in self.met}:
            if cell not in matrix.CELLS and cell not in matrix.LEFT_OUT:
                yield f"{cell} was met, and is not in the matrix (tests/sim/matrix.py)"
        for cell in matrix.CELLS:
            for kind, met in self.lacking(cell, wanted):
                yield f"{cell} was met with {' or '.join(kind)} {met} times; {wanted} are wanted"
        for who, bell in itertools.product(("worker", "client"), Bell):
            if self.bells[who, bell] < wanted:
                yield f"a bell of a {who} was {bell} {self.bells[who, bell]} times; {wanted} are wanted"
        for each in SOMETIMES:
            if wanted and not self.sometimes[each]:
                yield f"it never happened that {each}"

    def lacking(self, cell: Cell, wanted: int) -> list[tuple[tuple[Fault, ...], int]]:
        """Return the kinds of faults with which a cell was met too rarely, and how often it was."""
        counts = [
            (kind, sum(self.met[cell, fault] for fault in kind))
            for kind in KINDS
            if matrix.reachable(cell, kind[0])
        ]
        return [(kind, met) for kind, met in counts if met < wanted]

    def top_up(self, wanted: int) -> None:
        """Aim at each cell that was met too rarely, until it was not; give up after a while."""
        for number, cell in enumerate(matrix.CELLS):
            seeds = range(MORE * (1_000 + number), MORE * (1_001 + number))
            if self.lacking(cell, wanted):
                for result in schedule.run_many(seeds, aim=cell):
                    self.add(result)
                    if not self.lacking(cell, wanted):
                        break

    # -- what is to be said ----------------------------------------------------------------------------------

    @property
    def verdict(self) -> dict[str, int]:
        """How many schedules have lost a call, undone one, left one behind; and how many else were wrong."""
        kinds = Counter(_verdict(failure) for _, failure in self.failures)
        return {kind: kinds[kind] for kind in (*VERDICTS, "else")}

    def least(self) -> tuple[int, str]:
        """Return what was met most rarely, a cell with a kind of fault, and how often before it."""
        return min(
            (sum(self.met[cell, fault] for fault in kind), f"{' · '.join(cell)} · {' or '.join(kind)}")
            for cell in matrix.CELLS
            for kind in KINDS
            if matrix.reachable(cell, kind[0])
        )

    def report(self) -> Iterator[str]:
        """Tell how often each cell was met with each fault, what cannot be, and what came of it."""
        yield " " * 42 + "".join(f"{fault:>13}" for fault in Fault)
        for cell in sorted({*matrix.CELLS, *(cell for cell, _ in self.met)}):
            counts = [
                f"{self.met[cell, fault]:>13}" if matrix.reachable(cell, fault) else f"{'-':>13}"
                for fault in Fault
            ]
            yield f"{' · '.join(cell):42}{''.join(counts)}"
        for kind in ("worker", "client"):
            counts = [f"{bell} {self.bells[kind, bell]}" for bell in Bell]
            yield f"bells of a {kind}: {', '.join(counts)}"
        for each in sorted(self.sometimes):
            if each not in list(Fault):
                yield f"{self.sometimes[each]:>9} times {each}"
        yield "not wanted (`-` above), and why:"
        for cell, why in (*matrix.unreachable(), *matrix.LEFT_OUT.items()):
            yield f"    {' · '.join(cell)}: {why}"
        yield f"{self.schedules} schedules: {dict(self.totals)}"
        yield "met most rarely, {} times: {}".format(*self.least())
        yield ", ".join(f"{kind} {count}" for kind, count in self.verdict.items())

    def evidence(self) -> dict[str, Any]:
        """Return what is kept of a long campaign."""
        times, least = self.least()
        return {
            "schedules": self.schedules,
            "seeds": [list(each) for each in self.seeds],
            **{name: self.totals[name] for name in _TOTALS},
            "verdict": self.verdict,
            "least": {"cell": least, "met": times},
            "bells": {
                who: {str(bell): self.bells[who, bell] for bell in Bell} for who in ("worker", "client")
            },
            "sometimes": {each: self.sometimes[each] for each in SOMETIMES},
            "cells": {
                " · ".join(cell): {
                    str(fault): self.met[cell, fault] for fault in Fault if self.met[cell, fault]
                }
                for cell in sorted({*matrix.CELLS, *(cell for cell, _ in self.met)})
            },
        }

    @staticmethod
    def of(evidence: dict[str, Any]) -> Campaign:
        """Return the campaign that was kept: that of which nothing failed."""
        found = Campaign(evidence["schedules"], [(first, last) for first, last in evidence["seeds"]])
        found.totals.update({name: evidence[name] for name in _TOTALS})
        found.sometimes.update(evidence["sometimes"])
        for who, bells in evidence["bells"].items():
            found.bells.update({(who, Bell(bell)): count for bell, count in bells.items()})
        for name, faults in evidence["cells"].items():
            verb, _, state = name.partition(" · ")
            found.met.update({((verb, state), Fault(fault)): count for fault, count in faults.items()})
        return found


def _verdict(failure: str) -> str:
    kind = failure.removeprefix("at ").partition(" s: ")[2].partition(":")[0]
    return kind if kind in VERDICTS else "else"


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges of seeds as few as they can be said."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and found[-1][1] + 1 == first:
            found[-1] = found[-1][0], last
        else:
            found.append((first, last))
    return found


def _count(all: Counter[K], more: Counter[K]) -> None:
    for key, count in more.items():  # `update` asks first what it is given: of a few keys, that is most of it
        all[key] += count


def command(seed: int, aim: Cell | None = None) -> str:
    """Return what repeats the schedule of a seed."""
    return f"python -m tests.sim --seed {seed}" + (f" --aim '{':'.join(aim)}'" if aim else "")


def run(seeds: range, until: float = inf) -> Campaign:
    """Run the schedules of a range of seeds, or none of them after the instant `until` (`time.monotonic`)."""
    if time.monotonic() > until:
        return Campaign()
    found = collect(schedule.run_many(seeds))
    found.seeds = [(seeds[0], seeds[-1])] if seeds else []
    return found


def run_kept() -> Campaign:
    """Run the schedules that have found something once."""
    return collect(result for seed, aim in kept_seeds() for result in schedule.run_many([seed], aim=aim))


def commit() -> str:
    """Return the commit that is checked out."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def collect(results: Iterable[Result]) -> Campaign:
    """Return what these schedules have met."""
    campaign = Campaign()
    for result in results:
        campaign.add(result)
    return campaign
