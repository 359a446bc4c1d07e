"""Seeded schedules of the real client, worker, turn loop and keeper on virtual time, over a store that fails.

`EVERLOOP_SIM_SCHEDULES` says how many (20,000 are what the matrix is made for). Their seeds are always the
same, so that a failure is the fault of what was changed; chance has its turn in `make soak`. What they met
stands in `build/test-results/simulation.txt`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from everloop.engine.keeper import Witness
from everloop.engine.session import Session
from everloop.engine.worker import Worker
from everloop.store.memory_rows import Row
from tests.sim import campaign, matrix, schedule
from tests.sim.campaign import Campaign
from tests.sim.faults import Fault
from tests.sim.loop import Clockwork, SimLoop
from tests.sim.schedule import Result
from tests.sim.watch import Watch

SCHEDULES = int(os.environ.get("EVERLOOP_SIM_SCHEDULES", "20000"))
#: Fewer do not meet every cell of the matrix often enough.
WHOLE = 20_000


def test_seeds_that_have_found_something_find_nothing() -> None:
    found = campaign.run_kept()

    assert found.schedules == len(campaign.kept_seeds()) > 10
    assert not list(found.complaints(0)), "\n".join(found.complaints(0))


@pytest.mark.timeout(1_800)
def test_nothing_is_lost_undone_or_stuck_whatever_fails() -> None:
    found = campaign.run(range(SCHEDULES))
    wanted = matrix.WANTED if SCHEDULES >= WHOLE else 0
    found.top_up(wanted)

    report = "\n".join(found.report())
    campaign.RESULTS.mkdir(parents=True, exist_ok=True)
    (campaign.RESULTS / "simulation.txt").write_text(report + "\n", encoding="utf-8")
    print(report)
    complaints = list(found.complaints(wanted))
    assert not complaints, "\n".join(complaints)
    assert found.verdict == {"lost": 0, "undone": 0, "stuck": 0, "else": 0}
    assert not wanted or found.least()[0] >= wanted


def test_a_schedule_without_faults_meets_none() -> None:
    results = list(schedule.run_many(range(50), quiet=True))

    assert not any(result.failure or result.met or result.bells for result in results)
    assert sum(result.runs for result in results) > 50


def test_a_seed_is_the_same_schedule_in_every_process() -> None:
    program = (
        "from tests.sim import schedule\n"
        "print([result.digest for result in schedule.run_many(range(300, 330))])\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=campaign.ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]

    assert outputs[0].count("'") == 60
    assert outputs[0] == outputs[1]
    digests = [result.digest for result in schedule.run_many([299, *range(300, 330)])][1:]
    assert outputs[0] == f"{digests}\n"  # whatever ran before


def test_a_process_that_is_killed_runs_no_finally() -> None:
    clockwork = Clockwork(Random(1))
    loop = SimLoop(clockwork, None, "main")
    steps: list[str] = []

    async def body() -> None:
        try:
            steps.append("begins")
            await asyncio.sleep(1)
        finally:
            steps.append("cleans up")

    task = loop.create_task(body())
    clockwork.run(until=0.5)
    loop.kill()
    clockwork.run(until=5.0)
    assert steps == ["begins"]
    assert not task.done()

    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is pending, on purpose
    task.get_coro().close()  # type: ignore[union-attr]  # it is ours
    loop.bury()


def test_what_is_wrong_within_a_body_is_not_taken_for_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "begins", lambda self, *_: self.fail("a body begins"))

    (result,) = schedule.run_many([0])

    assert result.failure == f"at {result.seconds:.4f} s: a body begins"


def test_a_complaint_says_how_to_repeat_its_schedule() -> None:
    found = Campaign()
    found.add(Result(123, failure="at 1.0000 s: something is wrong"))

    assert list(found.complaints(0)) == [
        "at 1.0000 s: something is wrong\n    repeat it: python -m tests.sim --seed 123"
    ]
    assert campaign.command(7, ("renew", "reaped")) == "python -m tests.sim --seed 7 --aim 'renew:reaped'"


def test_a_campaign_that_met_too_little_complains() -> None:
    complaints = list(Campaign().complaints(20))

    assert "('renew', 'reaped') was met with lost 0 times; 20 are wanted" in complaints
    assert "a bell of a client was late 0 times; 20 are wanted" in complaints
    assert "it never happened that a call ran again" in complaints
    found = Campaign()
    found.met[("renew", "asleep"), Fault.LOST] += 1
    assert list(found.complaints(0)) == [
        "('renew', 'asleep') was met, and is not in the matrix (tests/sim/matrix.py)"
    ]


def test_a_cell_that_was_met_too_rarely_is_aimed_at() -> None:
    cell = ("settle cancel", "ended")
    found = Campaign()
    found.met.update({(other, fault): 3 for other in matrix.CELLS for fault in Fault if other != cell})

    found.top_up(3)

    assert found.schedules > 0
    assert not found.lacking(cell, 3)
    assert not found.failures


def test_what_cannot_be_met_is_not_wanted_and_the_report_says_why() -> None:
    assert not matrix.reachable(("serve (end)", "alive"), Fault.DRAIN)
    assert not set(matrix.CELLS) & set(matrix.LEFT_OUT)

    report = list(Campaign().report())

    assert "    serve (end) · alive · drain: who ends already is not asked to" in report
    assert "    wait · waiting: nobody awaits a callback" in report
    assert report[-2:] == [
        "met most rarely, 0 times: add child · absent · crash before or crash after",
        "lost 0, undone 0, stuck 0, else 0",
    ]


def test_a_verdict_tells_what_was_lost_undone_or_left_from_what_else_is_wrong() -> None:
    found = Campaign()
    for failure in (
        "at 1.0000 s: lost: x",
        "at 2.0000 s: stuck: y",
        "at 3.0000 s: stuck: z",
        "at 1.0 s: odd",
    ):
        found.add(Result(1, failure=failure))

    assert found.verdict == {"lost": 1, "undone": 0, "stuck": 2, "else": 1}


def test_parts_of_a_soak_add_up() -> None:
    parts = [campaign.run(range(first, first + 40)) for first in (100, 140, 500)]

    kept = Campaign()
    for part in parts:
        kept = Campaign.of(json.loads(json.dumps(kept.evidence())))
        kept.join(part)

    whole = campaign.collect(schedule.run_many([*range(100, 180), *range(500, 540)]))
    whole.seeds = [(100, 179), (500, 539)]
    assert kept.evidence() == whole.evidence()
    assert kept.evidence()["seeds"] == [[100, 179], [500, 539]]
    assert kept.evidence()["faults"] > 100


def test_a_soak_goes_on_where_it_ended(tmp_path: Path) -> None:
    for seed in ("700", "800"):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.sim",
                "--soak",
                "--count",
                "30",
                "--processes",
                "1",
                "--seed",
                seed,
            ],
            cwd=campaign.ROOT,
            env=os.environ | {"EVERLOOP_EVIDENCE": str(tmp_path)} | {"EVERLOOP_SOAK_S": "600"},
            check=True,
            capture_output=True,
        )
        if seed == "700":
            path = tmp_path / "simulation.json"
            path.write_text(path.read_text().replace('"schedules": 30', '"schedules": 20', 1))

    kept = json.loads((tmp_path / "simulation.json").read_text(encoding="utf-8"))
    assert kept["schedules"] == 30  # ten were left, of thirty
    assert kept["seeds"] == [[700, 729], [800, 809]]
    assert [part["schedules"] for part in kept["parts"]] == [30, 10]
    assert kept["verdict"] == {"lost": 0, "undone": 0, "stuck": 0, "else": 0}


def test_a_seed_is_kept_with_what_it_was_aimed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "SEEDS", tmp_path / "seeds.txt")
    campaign.SEEDS.write_text(
        "# what they are\n7  found\n8 [add child:there]  found, too\n", encoding="utf-8"
    )
    assert campaign.kept_seeds() == [(7, None), (8, ("add child", "there"))]

    campaign.SEEDS.write_text("7 found\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"seeds\.txt: '7 found' is not `SEED  what it found` or `SEED"):
        campaign.kept_seeds()


# -- that it finds something ------------------------------------------------------------------------------


def _drop_the_fence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Row, "holds", lambda self, _: self.state == "leased")


def _judge_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Witness, "may_judge", lambda *_: True)


def _hold_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Worker, "holding", ())


def _ask_for_no_ends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "_ask_for_ends", lambda _: None)


def _keep_what_is_reaped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "_was_reaped", lambda _: None)


@pytest.mark.parametrize(
    "sabotage",
    [_drop_the_fence, _hold_nothing, _ask_for_no_ends, _keep_what_is_reaped],
    ids=lambda sabotage: sabotage.__name__.strip("_").replace("_", " "),
)
def test_a_sabotage_is_found_soon(sabotage: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(sabotage)
    sabotage(monkeypatch)

    assert any(result.failure for result in schedule.run_many(range(600)))
