"""The gates of the bench: what a ratio was is kept, and what has fallen is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import __main__ as program
from bench import report
from bench.before import NoRecordError, first_ratios
from bench.figures import Figure
from bench.gates import GATES, KEPT, TARGETS, Past, comparable, fallen, judge


def figure(name: str, ratio: float, what: str = "calls", limit: str = "bare ones") -> Figure:
    return Figure(name, what, (ratio, ratio * 2, ratio / 2), "/s", limit, (1.0, 1.0, 1.0))


def keep(folder: Path, name: str, *figures: Figure, quick: bool = False, commit: str = "af1e852762") -> None:
    record = report.as_json({"date": "2026-11-24", "commit": commit}, figures, quick=quick)
    (folder / name).write_text(json.dumps(record), encoding="utf-8")


def past(ratio: float) -> Past:
    return Past(ratio, "2026-11-24-af1e852762.json", "calls", "bare ones")


@pytest.mark.parametrize(
    ("name", "before", "now", "falls"),
    [
        ("calls", 0.2, 0.181, False),
        ("calls", 0.2, 0.179, True),
        ("calls", 0.2, 0.4, False),
        ("latency", 1.8, 1.99, False),  # a time: more is worse
        ("latency", 1.8, 2.01, True),
        ("latency", 1.8, 0.9, False),
    ],
)
def test_a_ratio_keeps_nine_tenths_of_what_it_was(name: str, before: float, now: float, falls: bool) -> None:
    assert bool(fallen([figure(name, now)], {name: past(before)})) is falls


def test_what_fell_is_told_with_how_much_is_left_and_where_that_stands() -> None:
    (fall,) = fallen([figure("calls", 0.15)], {"calls": past(0.2)})

    assert fall.told == (
        "FELL: calls has 75 % of its speed left, at least 90 % is asked: its ratio is 0.15, and was 0.2 in "
        "bench/results/2026-11-24-af1e852762.json (calls; the limit: bare ones)"
    )
    (fall,) = fallen([figure("latency", 4.0)], {"latency": past(2.0)})
    assert "latency has 50 % of its speed left" in fall.told


def test_what_is_measured_otherwise_is_not_compared() -> None:
    figures = [figure("calls", 0.01, what="4,000 calls"), figure("drain", 0.01, limit="of another kind")]

    assert fallen(figures, {"calls": past(1), "drain": past(1)}) == []
    assert comparable(figures, {"calls": past(1), "drain": past(1)}) == []


def test_the_first_whole_record_counts_for_each_figure(tmp_path: Path) -> None:
    keep(tmp_path, "2026-11-23-af1e852762.json", figure("calls", 9), quick=True)
    keep(tmp_path, "2026-11-23-bf1e852762.json", figure("calls", 8), commit="bf1e852762+changes")
    keep(tmp_path, "2026-11-24-af1e852762.json", figure("calls", 0.2), figure("calls.of_no_gate", 1))
    keep(tmp_path, "2026-11-25-cf1e852762.json", figure("calls", 0.1), figure("latency", 3))

    found = first_ratios(tmp_path)

    assert {name: (each.ratio, each.record) for name, each in found.items()} == {
        "calls": (0.2, "2026-11-24-af1e852762.json"),
        "latency": (3, "2026-11-25-cf1e852762.json"),
    }


def test_without_a_record_nothing_can_be_checked(tmp_path: Path) -> None:
    keep(tmp_path, "2026-11-23-af1e852762.json", figure("calls", 9), quick=True)

    with pytest.raises(NoRecordError, match=f"no record of a commit in {tmp_path}, .* or leave out --check"):
        first_ratios(tmp_path)


def test_the_committed_record_of_the_first_issue_is_what_is_compared_with() -> None:
    found = first_ratios()

    first = {name for name, each in found.items() if each.record == "2026-11-24-af1e852762.json"}
    assert {"calls", "many", "many.submit", "drain", "embedded", "latency", "within", "due"} <= first
    assert found["calls"].ratio == pytest.approx(0.258, abs=0.001)


def test_every_gate_and_aim_has_a_verdict() -> None:
    figures = [figure(name, 1.0) for name in GATES]

    assert {verdict.figure.name for verdict in judge(figures) if verdict.gates} == set(GATES)
    assert TARGETS["cancel"].value == 1.0, "seconds: the goal of the issue"
    assert KEPT == 0.9


@pytest.mark.parametrize(
    ("now", "arguments", "code", "words"),
    [
        (0.25, [], 0, ["all 1 gates hold, and 1 ratios are at least 0.9 of what they were"]),
        (0.20, [], 1, ["once more, because of calls:", "FELL: calls has 77 % of its speed left"]),
        (
            0.05,
            [],
            1,
            ["BROKEN: calls is 0.05, at least 0.1 is asked: a call crosses", "FELL: calls has 19 %"],
        ),
        (0.20, ["--quick"], 0, ["not compared with a record: calls", "all 1 gates hold"]),
    ],
)
def test_the_check_of_the_bench_fails_when_a_ratio_has_fallen(
    now: float,
    arguments: list[str],
    code: int,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = first_ratios()["calls"]
    monkeypatch.setattr(
        program, "MEASURES", {"calls": lambda _: [figure("calls", now, known.what, known.limit)]}
    )

    assert program.main(["calls", "--check", "--no-save", *arguments]) == code
    told = capsys.readouterr().out
    assert all(each in told for each in words), told
    assert ("FELL" in told) is (now < 0.9 * known.ratio and not arguments)
