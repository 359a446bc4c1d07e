"""Run schedules of the simulation.

`python -m tests.sim --seed 123` repeats one and shows what happened in it; `--count 5000` runs so many from
that seed on and shows the matrix; `--soak` runs a million and writes what they met to `docs/evidence`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tests.sim import campaign, matrix, schedule
from tests.sim.campaign import Campaign

#: Schedules of a soak, and of one piece of work.
SOAK, PIECE = 1_000_000, 500


def main() -> int:
    """Run what was asked for; return 0 when nothing is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--aim", help="the cell to aim at, as VERB:STATE")
    parser.add_argument("--count", type=int, default=0, help="how many schedules")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no more schedules after so long")
    parser.add_argument("--soak", action="store_true", help=f"run {SOAK} schedules and keep what they met")
    given = parser.parse_args()
    if not (given.count or given.soak):
        return show(given.seed, tuple(given.aim.split(":")) if given.aim else None)
    begun = time.monotonic()
    found = spread(given.seed, given.count or SOAK, given.processes, begun + given.seconds)
    if found.schedules >= 20_000:
        found.top_up(matrix.WANTED)
    print("\n".join(found.table()))
    wanted = matrix.WANTED if found.schedules >= 20_000 else 0
    complaints = list(found.complaints(wanted))
    seconds = time.monotonic() - begun
    print(
        f"{found.schedules} schedules in {seconds:.0f} s, {len(found.failures)} failed; {dict(found.totals)}"
    )
    print("\n".join(complaints))
    if given.soak:
        keep(given.seed, seconds, found)
    return 1 if complaints else 0


def show(seed: int, aim: Any) -> int:
    """Run one schedule and show what happened."""
    (result,) = schedule.run_many([seed], aim=aim)
    print("\n".join(result.trace))
    print(f"seed {seed}, digest {result.digest}: {result.requests} requests, {result.calls} calls")
    print(result.failure or "nothing is wrong")
    return 1 if result.failure else 0


def spread(first: int, count: int, processes: int, until: float) -> Campaign:
    """Run schedules in several processes."""
    pieces = [range(begin, min(begin + PIECE, first + count)) for begin in range(first, first + count, PIECE)]
    found = Campaign()
    with ProcessPoolExecutor(processes) as pool:
        for part in pool.map(_piece, pieces, [until] * len(pieces)):
            found.join(part)
    return found


def _piece(seeds: range, until: float) -> Campaign:
    if time.monotonic() > until:
        return Campaign()
    return campaign.collect(schedule.run_many(seeds))


def keep(seed: int, seconds: float, found: Campaign) -> None:
    """Write the evidence of a long campaign, where `tools/soak.py` asks for it or into `docs/evidence`."""
    today = str(dt.datetime.now(dt.UTC).date())
    given = os.environ.get("EVERLOOP_EVIDENCE")
    folder = Path(given) if given else campaign.ROOT / "docs" / "evidence"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("simulation.json" if given else f"simulation-{today}.json")
    head = {
        "date": today,
        "commit": campaign.commit(),
        "command": f"python -m tests.sim --soak --seed {seed}",
        "seeds": [seed, seed + found.schedules - 1],
        "seconds": round(seconds),
    }
    path.write_text(json.dumps({**head, **found.evidence()}, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(main())
