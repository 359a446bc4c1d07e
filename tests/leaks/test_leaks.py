"""Client and worker hold no more after many calls of all kinds than they did before.

`make test` makes some thousands; EVERLOOP_LEAK_CALLS says how many on SQLite, EVERLOOP_LEAK_SERVER_CALLS how
many on each server (none by default), and what is found goes to the folder EVERLOOP_EVIDENCE.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.processes import started, worker
from tests.leaks.judge import ENOUGH, Point, faults, found

CALLS = int(os.environ.get("EVERLOOP_LEAK_CALLS", "20000"))
SERVER_CALLS = int(os.environ.get("EVERLOOP_LEAK_SERVER_CALLS", "0"))
#: A machine that has other things to do, too, makes so many calls in a second at least.
SLOWEST = 100
LIMIT_S = 60 + max(CALLS, SERVER_CALLS) / SLOWEST
HOW_MANY = {"sqlite": CALLS} | (
    dict.fromkeys(("mariadb", "postgresql"), SERVER_CALLS) if SERVER_CALLS else {}
)
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "tests.leaks.programs.load"

pytestmark = pytest.mark.timeout(LIMIT_S)


def run(store: str, folder: Path, calls: int, *, points: int, **settings: int) -> list[Point]:
    """Make so many calls with one client and one worker; return what both held on the way."""
    env = {
        "EVERLOOP_STORE": store,
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)])),
        **{name: str(value) for name, value in settings.items()},
    }
    with ExitStack() as stack:
        stack.enter_context(worker(f"{PROGRAM}:app", "--concurrency", "200", folder=folder, env=env))
        client = stack.enter_context(
            started("-m", PROGRAM, str(calls), str(points), folder=folder, env=env, name="client")
        )
        lines = client.ended(LIMIT_S).checked().lines
    return [Point.read(line) for line in lines]


@pytest.mark.parametrize(("where", "calls"), HOW_MANY.items())
def test_nothing_grows_with_the_number_of_calls(
    where: str, calls: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = _sqlite(tmp_path) if where == "sqlite" else str(request.getfixturevalue(f"{where}_url"))

    points = run(store, tmp_path, calls, points=100 if calls >= ENOUGH else 8)

    told = found(points)
    print(f"\n{where}: {json.dumps(told)}")
    if folder := os.environ.get("EVERLOOP_EVIDENCE"):
        Path(folder, f"{where}.json").write_text(json.dumps(told), encoding="utf-8")
    assert points[-1].calls >= calls
    assert not told["faults"]


def test_what_grows_is_found(tmp_path: Path) -> None:
    """A body that keeps a kilobyte of each call is noticed, and so the test above can fail."""
    points = run(_sqlite(tmp_path), tmp_path, 8_000, points=8, LOAD_WAVE=800, LOAD_LEAK=1000)

    assert [fault for fault in faults(points) if fault.startswith("worker: blocks of memory")]


def _sqlite(folder: Path) -> str:
    return f"sqlite:///{folder}/store.db"
