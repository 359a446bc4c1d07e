"""Run schedules of the simulation.

`python -m tests.sim --seed 123` repeats one and shows what happened in it; `--count 5000` runs so many from
that seed on and shows the matrix. `--soak` runs what is left of a million, for `EVERLOOP_SOAK_S` seconds at
most (3,300), from `--seed` or `EVERLOOP_SEED` on or from where chance begins. It adds what they met to what
is kept in `EVERLOOP_EVIDENCE`: `make soak ARGS=simulation` sees to it that this is of the same code.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tests.sim import campaign, matrix, schedule
from tests.sim.campaign import Campaign
from tests.sim.faults import Cell

#: Schedules of all parts of a soak, and of one piece of work.
SOAK, PIECE = 1_000_000, 250
#: A campaign of so many is to meet every cell.
WHOLE = 20_000


def main() -> int:
    """Run what was asked for; return 0 when nothing is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="the first seed")
    parser.add_argument("--aim", type=_cell, help="the cell to aim at, as VERB:STATE")
    parser.add_argument("--count", type=int, default=0, help="how many schedules")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--soak", action="store_true", help=f"run {SOAK} schedules, perhaps in parts")
    given = parser.parse_args()
    if given.soak:
        return soak(given.seed, given.count or SOAK, given.processes)
    if not given.count:
        return show(given.seed or 0, given.aim)
    return judge(spread(given.seed or 0, given.count, given.processes))


def _cell(text: str) -> Cell:
    verb, _, state = text.partition(":")
    if (verb, state) not in matrix.CELLS:
        cells = ", ".join(":".join(cell) for cell in matrix.CELLS)
        raise argparse.ArgumentTypeError(f"{text!r} is no cell; there are {cells}")
    return verb, state


def show(seed: int, aim: Cell | None) -> int:
    """Run one schedule and show what happened."""
    (result,) = schedule.run_many([seed], aim=aim)
    print("\n".join(result.trace))
    print(f"seed {seed}, digest {result.digest}: {result.requests} requests, {result.calls} calls")
    print(result.failure or "nothing is wrong")
    return 1 if result.failure else 0


def judge(found: Campaign) -> int:
    """Say what was met; return 0 when nothing is wrong, nor missing."""
    wanted = matrix.WANTED if found.schedules >= WHOLE else 0
    found.top_up(wanted)
    complaints = list(found.complaints(wanted))
    print("\n".join([*found.report(), *complaints]), flush=True)
    return 1 if complaints else 0


def spread(first: int, count: int, processes: int, seconds: float = 1e9) -> Campaign:
    """Run schedules in several processes, and begin none after so many seconds."""
    pieces = [range(begin, min(begin + PIECE, first + count)) for begin in range(first, first + count, PIECE)]
    found = Campaign()
    with ProcessPoolExecutor(processes) as pool:
        for part in pool.map(campaign.run, pieces, [time.monotonic() + seconds] * len(pieces)):
            found.join(part)
    return found


def soak(seed: int | None, most: int, processes: int) -> int:
    """Run what is left, or a part of it, and keep what all parts have met together."""
    folder = Path(os.environ.get("EVERLOOP_EVIDENCE", campaign.RESULTS))
    path = folder / "simulation.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"parts": []}
    earlier = Campaign.of(kept) if kept["parts"] else Campaign()
    if seed is None:
        seed = int(os.environ.get("EVERLOOP_SEED") or random.SystemRandom().randrange(10**6, 10**9))
    begun = time.monotonic()
    left, seconds = max(0, most - earlier.schedules), float(os.environ.get("EVERLOOP_SOAK_S", "3300"))
    print(f"{earlier.schedules} schedules are there, {left} to go, from seed {seed} on", flush=True)
    found = spread(seed, left, processes, seconds)
    part = {
        "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
        "commit": campaign.commit(),
        "seeds": [list(each) for each in found.seeds],
        "schedules": found.schedules,
        "seconds": round(time.monotonic() - begun),
    }
    found.join(earlier)
    failed = judge(found)
    if not failed:
        folder.mkdir(parents=True, exist_ok=True)
        evidence = {**found.evidence(), "parts": [*kept["parts"], part]}
        path.write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(main())
