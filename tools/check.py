"""Run the checks: `check.py` the quick ones, `check.py --all` everything on every Python.

Its last line is the count of tests, alone on the line: `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import covered
import lints
import suites


def main(arguments: list[str]) -> int:
    """Run the static checks and the suites, whatever becomes of either; return 0 when all is well."""
    started, everything = time.monotonic(), "--all" in arguments
    checks = lints.lints()
    plan = suites.plan(everything=everything)
    covered.begin()
    quick = [suite for suite in plan if suite.name in suites.QUICK]
    tally = suites.Tally()
    suites.compile_all(plan)
    with ThreadPoolExecutor(2) as pool:
        passes = pool.map(lints.passes, checks)
        counts = pool.map(suites.run_aside, quick)
        broken = [lint.name for lint, ok in zip(checks, passes, strict=True) if not ok]
        for counted in counts:
            tally.add(counted)
    slow = [suite for suite in plan if suite not in quick]
    with ThreadPoolExecutor(2) as pool:
        # Many wait, for sleeps, disks and processes that start: two at a time keep two cores busy.
        for counted in pool.map(suites.run_aside, slow):
            tally.add(counted)

    if slow:
        tally.expect_kills()
    print()
    if everything:
        found = covered.judge()
        tally.complaints += found
        broken += ["coverage"] if found else []
    print(f"{time.monotonic() - started:.0f} s")
    if broken:
        print(f"failed checks: {', '.join(broken)}")
    print(tally.told())
    return 1 if broken or tally.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
