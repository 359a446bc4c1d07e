"""Branch coverage, of the parts in which every branch has a test.

`covered.py` runs the suites that are measured, shows what they reach, and judges it. `make test` measures the
same suites where it runs them anyway, and judges them once all have ended.

Only what a test forces to happen may count: a branch that is met by luck is missing on another day.
"""

from __future__ import annotations

import os
import shutil
import sys
from io import StringIO
from pathlib import Path

import coverage
import suites

ROOT = suites.ROOT
#: The least percentage of lines and branches, by part of the package.
FLOORS = {"_core": 100, "store": 100, "engine": 95}
#: Leaves out the tests that need a database server, without which most of `store/sql` cannot be met.
SKIP = "EVERLOOP_SKIP_SERVERS"


def judge() -> list[str]:
    """Combine what the suites left; return what there is to complain of, with the lines that are missing."""
    try:
        measured = combined()
        return [complaint for part, floor in FLOORS.items() for complaint in _judge(measured, part, floor)]
    except coverage.CoverageException as error:
        return [f"coverage: the suites have left nothing to judge in {suites.MEASURED_DATA}: {error}"]


def combined() -> coverage.Coverage:
    """Return all that the suites have left.

    Raises:
        coverage.CoverageException: That is nothing, or cannot be read.
    """
    folder = suites.MEASURED_DATA
    found = coverage.Coverage(data_file=str(folder / "all"), config_file=str(ROOT / "pyproject.toml"))
    found.combine(
        [str(path) for path in sorted(folder.glob(f"{suites.MEASURED_AS}.*"))], strict=True, keep=True
    )
    found.save()
    return found


def _judge(measured: coverage.Coverage, part: str, floor: float) -> list[str]:
    if part == "store" and os.environ.get(SKIP) == "1":
        print(f"coverage of {part}: NOT JUDGED, because {SKIP}=1 leaves out the tests that reach it")
        return []
    shown = StringIO()
    percent = measured.report(include=[f"*/everloop/{part}/*"], file=shown, skip_covered=True)
    print(f"coverage of {part}: {percent:.2f} %, at least {floor} %")
    if percent >= floor:
        return []
    return [shown.getvalue().rstrip(), f"coverage of {part}: {percent:.2f} %, not {floor} %"]


def begin() -> None:
    """Forget what was measured before."""
    shutil.rmtree(suites.MEASURED_DATA, ignore_errors=True)
    suites.MEASURED_DATA.mkdir(parents=True)


def main() -> int:
    """Run the measured suites, show what they reach, and return 0 when it is enough and all tests passed."""
    suites.RESULTS.mkdir(parents=True, exist_ok=True)
    begin()
    tally = suites.Tally()
    for name in suites.MEASURED:
        tally.add(suites.run_alone(suites.Suite(name, Path(sys.executable), measured=True, patient=True)))
    print()
    complaints = judge()
    combined().report()
    print("\n".join(["", *complaints, tally.told()]))
    return 1 if complaints or tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
