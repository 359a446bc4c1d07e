"""Run the checks: `check.py` the quick ones, `check.py --all` everything on every Python.

Its last line is the count of tests, alone on the line: `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import sys
import time

import lints
import suites


def main(arguments: list[str]) -> int:
    """Run the static checks, then the suites, whatever becomes of either; 0 when all is well."""
    started = time.monotonic()
    broken = lints.run_all()
    tally = suites.run_all(everything="--all" in arguments)

    print(f"\n{time.monotonic() - started:.0f} s")
    if broken:
        print(f"failed checks: {', '.join(broken)}")
    if tally.complaints:
        print("\n".join(tally.complaints))
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if broken or tally.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
