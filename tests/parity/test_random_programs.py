"""Random programs do over calls what they do over coroutines: the same lines, in the same order.

What plain asyncio makes of a program is computed in virtual time, with every call late by chance; what all
of those runs have in common must hold for the durable run, which is late by what the engine takes. The seeds
are of programs whose lines never depend on chance; `EVERLOOP_TEST_SEEDS=1000-1300` tries more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from everloop import App
from tests.helpers.processes import importing_from, worker
from tests.helpers.random_app import Body, make_body
from tests.helpers.random_programs import Expected, Node, grow

ROOT = Path(__file__).resolve().parents[2]

#: Programs that depend on no chance.
SEEDS = (
    1, 2, 3, 7, 10, 12, 14, 15, 16, 19, 23, 24, 27, 29, 34, 36, 40, 42, 46, 47, 51, 52, 54, 59, 63, 64, 66,
    69, 70, 71, 72, 74, 76, 77, 78, 82, 83, 84, 86, 89, 90, 91, 96, 97, 98, 102, 104, 109, 110, 111,
    112, 114, 116, 119, 125, 126, 138, 139, 140, 141, 144, 146, 149, 152, 153, 154, 155, 157, 158, 159,
    160, 162, 164, 165, 166, 167, 172, 176, 181, 183, 184, 186, 187, 190, 192, 197, 198, 202, 203, 204,
    205, 206, 208, 210, 213, 214, 216, 220, 221, 224,
)  # fmt: skip
#: Seconds of one unit; a call may take 0.4 of one to begin, to end, and to be cancelled. A busy machine may
#: be later than that: what is different then has more time in the next round.
UNITS = (0.12, 0.4, 1.0)


@pytest.fixture(scope="module")
def programs() -> dict[int, tuple[Node, Expected]]:
    """Return each program, and what its plain runs have in common."""
    first, _, last = os.environ.get("EVERLOOP_TEST_SEEDS", "").partition("-")
    more = range(int(first), int(last)) if last else ()
    made = {seed: grow(seed) for seed in (*SEEDS, *more)}
    expected = {seed: Expected(program, runs=200 if more else 20) for seed, program in made.items()}
    return {seed: (made[seed], each) for seed, each in expected.items() if each.lines is not None}


Run = Callable[[dict[int, Node], Path, float], Coroutine[Any, Any, None]]


async def in_memory(programs: dict[int, Node], folder: Path, unit: float) -> None:
    await with_embedded_worker(App("random", "memory://"), programs, folder, unit)


async def on_sqlite(programs: dict[int, Node], folder: Path, unit: float) -> None:
    await with_embedded_worker(App("random", f"sqlite:///{folder}/store.db"), programs, folder, unit)


async def with_embedded_worker(app: App, programs: dict[int, Node], folder: Path, unit: float) -> None:
    body = make_body(app, folder, unit)
    async with app.worker(concurrency=1_000):
        await run_all(body, programs)


async def in_two_workers(programs: dict[int, Node], folder: Path, unit: float) -> None:
    """Run the bodies in two other processes: a child is often not where its parent is."""
    app = App("random", f"sqlite:///{folder}/store.db")
    body = make_body(app, folder, unit)
    env = importing_from(ROOT) | {
        "EVERLOOP_STORE": app.store_url,
        "RANDOM_FOLDER": str(folder),
        "RANDOM_UNIT": str(unit),
    }
    target, options = "tests.helpers.random_app:app", ("--concurrency", "500")
    with (
        worker(target, *options, folder=folder, env=env, name="one"),
        worker(target, *options, folder=folder, env=env, name="two"),
    ):
        async with app:
            await run_all(body, programs)


async def run_all(body: Body, programs: dict[int, Node]) -> None:
    await asyncio.gather(*(body(seed, node) for seed, node in programs.items()), return_exceptions=True)


@pytest.mark.both_loops
@pytest.mark.parametrize("run", [in_memory, on_sqlite, in_two_workers], ids=lambda run: run.__name__)
async def test_calls_do_what_coroutines_do(
    run: Run, programs: dict[int, tuple[Node, Expected]], tmp_path: Path
) -> None:
    assert len(programs) > 0.9 * len(SEEDS)
    wrong: dict[int, str] = {}
    for unit in UNITS:
        folder = tmp_path / f"at {unit}"
        folder.mkdir()
        again = {seed: programs[seed] for seed in wrong or programs}
        await run({seed: program for seed, (program, _) in again.items()}, folder, unit)
        traces = {seed: (folder / f"{seed}.trace").read_text(encoding="utf-8").splitlines() for seed in again}
        wrong = {
            seed: said for seed, (_, expected) in again.items() if (said := expected.refuse(traces[seed]))
        }
        if not wrong:
            return
    first, said = next(iter(wrong.items()))
    pytest.fail(f"seeds {sorted(wrong)}; of {first}:\n{said}\n" + "\n".join(traces[first]))
