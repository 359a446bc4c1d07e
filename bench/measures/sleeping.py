"""Calls that wait: many at once, and the three founding programs that sleep side by side."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from bench.figures import Figure, Plan, Rounds
from bench.loops import sleep_seconds
from bench.place import ROOT
from bench.processes import LIMIT, ProcessError, client, worker

COUNT, SECONDS = 2_000, 0.1
PLAIN = "asyncio alone"
PROGRAMS = "p6_at_once", "p7_nested", "p8_returning"
_TIME = re.compile(r"^TIME: ([\d.]+) s$", re.MULTILINE)


def sleeps(plan: Plan) -> list[Figure]:
    """Thousands of sleeping calls at once."""
    naps = [SECONDS] * COUNT
    rounds = Rounds()
    store = plan.folder / "sleeps.db"
    with worker(store, concurrency=COUNT), client(store) as asking:
        for n in range(plan.rounds + 1):
            limit, answer = sleep_seconds(naps), asking.ask("sleep_at_once", seconds=naps)
            if n:  # the first is to warm up
                rounds.note(limit=limit, across=answer["seconds"])
    with client(plan.folder / "naps.db", embedded=COUNT) as asking:
        for n in range(plan.rounds + 1):
            limit, answer = sleep_seconds(naps), asking.ask("sleep_at_once", seconds=naps)
            if n:
                rounds.note(limit_within=limit, within=answer["seconds"])
    what = f"{COUNT:,} calls of asyncio.sleep({SECONDS}) at once"
    return [
        Figure("sleeps", f"{what}, separate worker", rounds["across"], "s", PLAIN, rounds["limit"]),
        Figure("sleeps.within", f"{what}, embedded", rounds["within"], "s", PLAIN, rounds["limit_within"]),
    ]


def programs(plan: Plan) -> list[Figure]:
    """The founding programs 6 to 8, each in an empty folder, and each saying itself how long it took."""
    rounds = Rounds()
    for n in range(plan.rounds):
        for name in PROGRAMS:
            folder = plan.folder / f"{name}-{n}"
            folder.mkdir()
            path = [str(ROOT / "src"), str(ROOT / "examples")]
            done = subprocess.run(
                [sys.executable, str(ROOT / "examples" / "founding" / f"{name}.py")],
                cwd=folder,
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(path), "EVERLOOP_STORE": f"sqlite:///{folder}/p.db"},
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
            found = _TIME.search(done.stdout)
            if done.returncode or found is None:
                raise ProcessError(f"{name} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
            rounds.note(**{name: float(found[1])})
    return [
        Figure(f"programs.{name[:2]}", f"founding program {name}: sleeps of 1, 2 and 4 s", rounds[name], "s",
               "4 s of sleep", (4.0,) * plan.rounds)
        for name in PROGRAMS
    ]  # fmt: skip
