"""The test suites: each folder of `tests` with a `test_*.py` in it, run by a pytest of its own.

`suites.py NAME ...` runs these on this Python; it ends with the servers that ran, and with the count.

A suite in which nothing ran counts as a failure: a whole suite is skipped by mistake only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "test-results"

#: What `make check` runs, two at a time.
QUICK = ("typing", "docs", "unit")
#: What runs on every Python that is installed; the others run on that of `.venv`.
EVERYWHERE = ("unit", "stores", "engine", "parity")
#: What `make test` measures the branch coverage of (see `covered.py`), on the Python of `.venv`.
MEASURED = ("unit", "stores", "engine", "processes")
#: Where that goes, and how its files begin.
MEASURED_DATA, MEASURED_AS = ROOT / "build" / "coverage", "data"
#: The least number of real kills in all suites together.
KILLS = 60
#: Under this name a suite reports its kills of a kind.
KILLED = "kills: "
#: What takes minutes, and runs by `make soak` alone.
SOAK = "soak"
#: A suite that takes longer than this hangs, where no test's own limit can see it.
LIMIT_S = 900
#: The same, and a test's own limit, where nobody waits for the end.
PATIENT_S, PATIENT_TEST_S = 3600, 300


@dataclass
class Tally:
    """Counts of tests, and what else is to be said at the end."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    complaints: list[str] = field(default_factory=list)
    #: The servers that the tests were given, as these call themselves.
    servers: set[str] = field(default_factory=set)
    #: The real kills of the tests, by their kinds.
    kills: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.complaints += other.complaints
        self.servers |= other.servers
        self.kills += other.kills

    def expect_kills(self) -> None:
        """Count as a failure that too few processes were killed."""
        if (total := self.kills.total()) < KILLS:
            self.failed += 1
            self.complaints.append(f"{total} real kills, which is a failure: {KILLS} are the least")

    def told(self) -> str:
        """Return the count in one line, below what there is to complain of and what was killed."""
        kinds = ", ".join(f"{times} x {kind}" for kind, times in sorted(self.kills.items()))
        killed = [f"{self.kills.total()} real kills: {kinds}"] if kinds else []
        count = f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"
        return "\n".join([*killed, *self.complaints, count])


@dataclass(frozen=True)
class Suite:
    """A folder of tests, and the interpreter that runs it."""

    name: str
    python: Path
    #: Whether what needs a database server runs, too.
    servers: bool = True
    #: Whether it may take longer than usual.
    patient: bool = False
    #: Whether it is noted which lines and branches it reaches.
    measured: bool = False

    @property
    def title(self) -> str:
        _, _, version = self.python.parts[-3].partition(".venv-")
        return f"{self.name} (Python {version})" if version else self.name


def names() -> list[str]:
    """Return the suites there are, the quick ones first."""
    there = {path.relative_to(ROOT / "tests").parts[0] for path in ROOT.glob("tests/*/**/test_*.py")}
    found = sorted(there - {SOAK})
    return sorted(found, key=lambda name: QUICK.index(name) if name in QUICK else len(QUICK))


def others() -> list[Path]:
    """Return the interpreters of the other environments (`.venv-3.12`), newest first."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    pythons = [path for path in ROOT.glob(".venv-3.*/bin/python") if path.parts[-3] != f".venv-{own}"]
    return sorted(pythons, key=lambda path: int(path.parts[-3].rpartition(".")[2]), reverse=True)


def plan(*, everything: bool) -> list[Suite]:
    """Return what is to be run, in order."""
    own = Path(sys.executable)
    here = [
        Suite(name, own, everything, measured=everything and name in MEASURED)
        for name in names()
        if everything or name in QUICK
    ]
    if not everything:
        return here
    return here + [
        Suite(name, python, servers=False) for python in others() for name in names() if name in EVERYWHERE
    ]


def compile_all(plan: Iterable[Suite]) -> None:
    """Compile the sources once for each interpreter, as pip does: tests start thousands of processes.

    The processes write no bytecode themselves; what changes meanwhile is compiled anew by each.
    """
    for python in {suite.python for suite in plan}:
        command = [str(python), "-m", "compileall", "-q", "src", "examples", "tests"]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)  # a fault shows in its test


def run(suite: Suite, output: IO[str] | None = None) -> Tally:
    """Run one and count."""
    results = RESULTS / f"{suite.title.replace(' ', '-')}.xml"
    results.unlink(missing_ok=True)
    command = [str(suite.python)]
    if suite.measured:
        command += ["-m", "coverage", "run", f"--data-file={MEASURED_DATA / MEASURED_AS}"]
    command += ["-m", "pytest", "-q", f"--junit-xml={results}", f"tests/{suite.name}"]
    if not suite.servers:
        command += ["-m", "not server"]
    if suite.patient or suite.measured:
        command += [f"--timeout={PATIENT_TEST_S}"]
    limit = PATIENT_S if suite.patient else LIMIT_S
    environment = os.environ | {"PATH": f"{suite.python.parent}{os.pathsep}{os.environ['PATH']}"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return Tally(failed=1, complaints=[f"{suite.title}: no end after {limit} s"])
    return judge(suite, done.returncode, count(results))


def run_aside(suite: Suite) -> Tally:
    """Run one beside another: what it prints appears when it has ended."""
    # A file, not a pipe: a process that a test left behind would hold the pipe open.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        tally = run(suite, output)
        output.seek(0)
        print(f"\n--- {suite.title}\n{output.read().rstrip()}", flush=True)
    return tally


def run_alone(suite: Suite) -> Tally:
    """Run one in the foreground."""
    print(f"\n--- {suite.title}", flush=True)
    return run(suite)


def count(results: Path) -> Tally:
    """Read pytest's report."""
    if not results.exists():
        return Tally()
    totals = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    servers, kills = set[str](), Counter[str]()
    for report in ET.parse(results).getroot().iter("testsuite"):  # noqa: S314 - our own file
        for name in totals:
            totals[name] += int(report.get(name, 0))
        servers |= {
            noted.get("value", "") for noted in report.iterfind("properties/property[@name='server']")
        }
        for noted in report.iterfind("properties/property"):
            if (name := noted.get("name", "")).startswith(KILLED):
                kills[name.removeprefix(KILLED)] += int(noted.get("value", 0))
    failed = totals["failures"] + totals["errors"]
    passed = totals["tests"] - failed - totals["skipped"]
    return Tally(passed, failed, totals["skipped"], servers=servers, kills=kills)


def judge(suite: Suite, code: int, tally: Tally) -> Tally:
    """Count as a failure what pytest's numbers do not show: nothing ran, or pytest itself broke."""
    if tally.failed:
        tally.complaints.append(f"{suite.title}: {tally.failed} failed")
    elif not tally.passed:
        tally.failed += 1
        tally.complaints.append(f"{suite.title}: nothing ran ({tally.skipped} skipped), which is a failure")
    elif code:
        tally.failed += 1
        tally.complaints.append(f"{suite.title}: pytest ended with {code}")
    return tally


def main(arguments: list[str]) -> int:
    """Run the suites of these names on this Python, with servers; return 0 when all is well."""
    unknown = sorted(set(arguments) - set(names()))
    if unknown or not arguments:
        told = f"there is no suite {', '.join(map(repr, unknown))}" if unknown else "name the suites to run"
        print(f"{told}; there are: {', '.join(names())}")
        return 2
    RESULTS.mkdir(parents=True, exist_ok=True)
    tally = Tally()
    compile_all([Suite(arguments[0], Path(sys.executable))])
    for name in arguments:
        tally.add(run_alone(Suite(name, Path(sys.executable), patient=True)))
    python = ".".join(map(str, sys.version_info[:3]))
    print(
        "\n".join(["", f"ran on Python {python}", *(f"ran on {server}" for server in sorted(tally.servers))])
    )
    print(tally.told())
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
