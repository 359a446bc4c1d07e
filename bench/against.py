"""`python -m bench.against COMMIT`: measure the code of an earlier commit and of this one in turns.

A ratio to the machine's limit is comparable on one machine. On another, where the disk is fifteen times as
fast and the processor is not, the limit is another and so is every ratio, though no line of code has changed.
What the code itself has lost is seen only where both versions run in the same minutes.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.gates import GATES, KEPT, left
from bench.place import ROOT, PlaceError, choose, facts
from bench.report import number

#: What one version runs: its own measures, of which it tells the figures.
_PROGRAM = """
import json, sys
from pathlib import Path
from bench.__main__ import MEASURES
from bench.figures import Plan
plan = Plan(Path(sys.argv[2]), 1, sys.argv[3] == "quick", lambda line: None)
for each in MEASURES[sys.argv[1]](plan):
    print(json.dumps([each.name, each.what, each.unit, each.samples[0]]))
"""
#: Those that say something of the engine, not of what stands beside it in the database.
NAMES = ("calls", "many", "drain", "embedded", "latency", "within", "sleeps", "strangers", "import")


class AgainstError(Exception):
    """A version could not be measured."""


@dataclass
class Pair:
    """One figure of both versions, round by round.

    Attributes:
        what: What it says; nothing is compared that says something else in the other version.
    """

    name: str
    what: str
    unit: str
    before: list[float] = field(default_factory=list[float])
    now: list[float] = field(default_factory=list[float])

    @property
    def left(self) -> float:
        """The share of the speed that is left, by the median of the rounds: less than 1 is slower."""
        return statistics.median(left(self.name, *each) for each in zip(self.before, self.now, strict=True))

    @property
    def told(self) -> str:
        before, now = (number(statistics.median(each), self.unit) for each in (self.before, self.now))
        return f"{self.name:<20} {before:>11} {now:>11} {self.left:>7.2f}  {self.what}"


def measure(tree: Path, name: str, folder: Path, *, quick: bool) -> list[Figure]:
    """Return one round of a measure, by the code and the bench of a tree.

    Raises:
        AgainstError: It failed.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tree, tree / "src")))}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, "-c", _PROGRAM, name, place, "quick" if quick else "whole"]
        ran = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise AgainstError(f"{name} of {tree} failed:\n{ran.stderr[-3000:]}")
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    return [Figure(each, what, (sample,), unit) for each, what, unit, sample in found]


def pair(rounds: Sequence[tuple[Sequence[Figure], Sequence[Figure]]]) -> list[Pair]:
    """Put together what both versions have measured alike: figures with a gate, round by round."""
    pairs: dict[str, Pair] = {}
    for before, now in rounds:
        known = {figure.name: figure for figure in before}
        for figure in now:
            other = known.get(figure.name)
            if figure.name in GATES and other is not None and other.what == figure.what:
                each = pairs.setdefault(figure.name, Pair(figure.name, figure.what, figure.unit))
                each.before.append(other.median)
                each.now.append(figure.median)
    return list(pairs.values())


def evidence(known: Mapping[str, str], commit: str, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return what is kept."""
    return {
        "what": "against",
        "facts": dict(known),
        "before": commit,
        "share of the speed that is left": {each.name: round(each.left, 3) for each in pairs},
        "samples": {each.name: {"unit": each.unit, "before": each.before, "now": each.now} for each in pairs},
    }


def _unpack(commit: str, folder: Path) -> str:
    """Put the files of a commit into a folder; return its whole name.

    Raises:
        AgainstError: There is no such commit.
    """
    git = ("git", "-C", str(ROOT))
    asked = subprocess.run(
        [*git, "rev-parse", "--verify", f"{commit}^{{commit}}"], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        raise AgainstError(
            f"there is no commit {commit!r} here; `git log --oneline bench/results` shows some"
        )
    name = asked.stdout.strip()
    packed = subprocess.run([*git, "archive", name], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed, check=True)
    return name


def main(arguments: Sequence[str]) -> int:
    """Measure both; return 1 when a figure has less than nine tenths of its speed left."""
    parser = argparse.ArgumentParser(prog="python -m bench.against", description=__doc__)
    parser.add_argument("commit", help="the earlier version")
    parser.add_argument("names", nargs="*", help=f"what to measure (default: {' '.join(NAMES)})")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of each version (default: 5)")
    parser.add_argument("--quick", action="store_true", help="smaller amounts")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write what was found there, as JSON")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="everloop-bench-", dir=choose(None)) as text:
            place = Path(text)
            known, earlier = facts(place), place / "before"
            earlier.mkdir()
            commit = _unpack(options.commit, earlier)
            found = _measure_in_turns(options, earlier, place)
    except (AgainstError, PlaceError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    if options.keep:
        kept = evidence(known | {"until": f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC"}, commit, found)
        options.keep.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    slower = [each for each in found if each.left < KEPT]
    print(f"\n{len(found) - len(slower)} of {len(found)} have at least {KEPT} of their speed left")
    return 1 if slower else 0


def _measure_in_turns(options: argparse.Namespace, earlier: Path, place: Path) -> list[Pair]:
    print(f"{'':<20} {options.commit[:11]:>11} {'now':>11} {'left':>7}", flush=True)
    found: list[Pair] = []
    for name in options.names or NAMES:
        rounds = [
            (
                measure(earlier, name, place, quick=options.quick),
                measure(ROOT, name, place, quick=options.quick),
            )
            for _ in range(options.rounds)
        ]
        for each in pair(rounds):
            found.append(each)
            print(each.told, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
