"""Random programs do over calls what they do over coroutines: the same lines, in the same order.

What plain asyncio makes of a program is computed in virtual time, with every call late by chance; what all
of those runs have in common must hold for the durable run, which is late by what the engine takes. The seeds
are of programs whose lines never depend on chance; `EVERLOOP_TEST_SEEDS=1000-1300` tries more.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from everloop import App
from tests.helpers.random_programs import Expected, Interpreter, Node, grow

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


@pytest.mark.both_loops
@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_calls_do_what_coroutines_do(
    store: str, programs: dict[int, tuple[Node, Expected]], tmp_path: Path
) -> None:
    assert len(programs) > 0.9 * len(SEEDS)
    app = App("random", "memory://" if store == "memory" else f"sqlite:///{tmp_path}/store.db")
    wrong: dict[int, str] = {}
    for unit in UNITS:
        again = {seed: programs[seed] for seed in wrong or programs}
        traces = await run(app, {seed: program for seed, (program, _) in again.items()}, unit)
        wrong = {
            seed: said for seed, (_, expected) in again.items() if (said := expected.refuse(traces[seed]))
        }
        if not wrong:
            return

    first, said = next(iter(wrong.items()))
    pytest.fail(f"seeds {sorted(wrong)}; of {first}:\n{said}\n" + "\n".join(traces[first]))


async def run(app: App, programs: dict[int, Node], unit: float) -> dict[int, list[str]]:
    """Run all of them at once over calls, and return what they noted."""
    traces: dict[int, list[str]] = {seed: [] for seed in programs}

    @app.task(name=f"body at {unit}")
    async def body(seed: int, node: Node) -> str:
        return await Interpreter(lambda child: body(seed, child), traces[seed].append, unit).run(node)

    async with app.worker(concurrency=1_000):
        await asyncio.gather(*(body(seed, node) for seed, node in programs.items()), return_exceptions=True)
    return traces
