"""Many schedules, what they met together, and what they had to meet."""

from __future__ import annotations

import itertools
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.sim import matrix, schedule
from tests.sim.faults import KINDS, Bell, Cell, Fault
from tests.sim.schedule import Result

ROOT = Path(__file__).resolve().parents[2]
SEEDS = Path(__file__).with_name("seeds.txt")

#: Schedules that are aimed at one cell, at most, when it was met too rarely.
MORE = 500

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


def kept_seeds() -> list[int]:
    """Return the seeds that have found something once."""
    lines = SEEDS.read_text(encoding="utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


@dataclass
class Campaign:
    """What some schedules have met."""

    schedules: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    met: Counter[tuple[Cell, Fault]] = field(default_factory=Counter)
    seen: Counter[Cell] = field(default_factory=Counter)
    bells: Counter[tuple[str, Bell]] = field(default_factory=Counter)
    sometimes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Count one schedule."""
        self.schedules += 1
        self.totals.update(
            requests=result.requests,
            calls=result.calls,
            runs=result.runs,
            faults=sum(result.sometimes[str(fault)] for fault in Fault),
            virtual_milliseconds=round(1_000 * result.seconds),
        )
        self.met.update(result.met)
        self.seen.update(result.seen)
        self.bells.update(result.bells)
        self.sometimes.update(result.sometimes)
        if result.failure:
            self.failures.append((command(result.seed, result.aim), result.failure))

    def join(self, other: Campaign) -> None:
        """Count what another process has run."""
        self.schedules += other.schedules
        for name in ("totals", "met", "seen", "bells", "sometimes"):
            getattr(self, name).update(getattr(other, name))
        self.failures += other.failures

    def complaints(self, wanted: int) -> Iterator[str]:
        """Say what is not as it must be: failures, and what was met too rarely or never happened."""
        for repeat, failure in self.failures:
            yield f"{failure}\n    repeat it: {repeat}"
        for cell in self.seen:
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

    def table(self) -> Iterator[str]:
        """Return the matrix as lines: how often each cell was met with each fault."""
        yield f"{'':42}{'seen':>9}" + "".join(f"{fault:>13}" for fault in Fault)
        for cell in sorted(set(self.seen) | set(matrix.CELLS)):
            counts = [
                f"{self.met[cell, fault]:>13}" if matrix.reachable(cell, fault) else f"{'-':>13}"
                for fault in Fault
            ]
            yield f"{' · '.join(cell):42}{self.seen[cell]:>9}{''.join(counts)}"
        for kind in ("worker", "client"):
            counts = [f"{bell} {self.bells[kind, bell]}" for bell in Bell]
            yield f"bells of a {kind}: {', '.join(counts)}"
        for each in sorted(self.sometimes):
            if each not in list(Fault):
                yield f"{self.sometimes[each]:>9} times {each}"

    def evidence(self) -> dict[str, Any]:
        """Return what is kept of a long campaign."""
        return {
            "schedules": self.schedules,
            **{name: self.totals[name] for name in ("requests", "calls", "runs", "faults")},
            "virtual_days": round(self.totals["virtual_milliseconds"] / 86_400_000, 2),
            "failures": [{"repeat": repeat, "failure": failure} for repeat, failure in self.failures],
            "sometimes": {each: self.sometimes[each] for each in SOMETIMES},
            "cells": {
                " · ".join(cell): {
                    str(fault): self.met[cell, fault] for fault in Fault if self.met[cell, fault]
                }
                for cell in sorted(matrix.CELLS)
            },
        }


def command(seed: int, aim: Cell | None = None) -> str:
    """Return what repeats the schedule of a seed."""
    return f"python -m tests.sim --seed {seed}" + (f" --aim '{':'.join(aim)}'" if aim else "")


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
