"""`python -m tests.sim --seed 123`: run one schedule and show what happened."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from collections import Counter

from tests.sim import nodes, schedule


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--trace", action="store_true")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None
    notices: list[str] = []
    met: Counter = Counter()
    cells: Counter = Counter()
    some: Counter = Counter()
    failed: Counter = Counter()
    tot = Counter()
    begin = time.process_time()

    def each(result):
        for (cell, fault), n in result.met.items():
            cells[cell] += n
            met[fault] += n
        some.update(result.sometimes)
        tot.update(requests=result.requests, calls=result.calls, runs=result.runs, vs=result.seconds)
        if result.failure:
            failed[result.seed] += 1
            if len(failed) <= 12:
                print(result.seed, result.failure[:600])
        if given.trace:
            print("\n".join(result.trace))
            print(result.digest)

    with nodes.simulated(notices):
        schedule.run_many(range(given.seed, given.seed + given.count), each)
    cpu = time.process_time() - begin
    print(
        f"{given.count} schedules, {cpu:.1f} s CPU, {given.count / cpu:.0f}/s; {dict(tot)}; failed {len(failed)}"
    )
    for k, n in sorted(cells.items()):
        if given.count > 1:
            print(n, k)
    print(met)
    print(some)
    print(set(notices))
    return 0


sys.exit(main())
