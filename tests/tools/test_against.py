"""Two versions that are measured in turns: what is compared, and how it is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import against
from bench.against import AgainstError, Pair, evidence, main, measure, pair
from bench.figures import Figure


def figure(name: str, value: float, what: str = "calls", unit: str = "/s") -> Figure:
    return Figure(name, what, (value,), unit)


def test_the_share_that_is_left_is_the_median_of_the_rounds_and_more_is_faster() -> None:
    assert Pair("calls", "calls", "/s", [100, 100, 400], [90, 110, 100]).left == pytest.approx(0.9)
    assert Pair("latency", "p50", "ms", [2.0], [4.0]).left == pytest.approx(0.5)


def test_only_what_has_a_gate_and_says_the_same_in_both_is_compared() -> None:
    before = [figure("calls", 100), figure("drain", 100, "4,000 calls"), figure("idle.wakes", 3)]
    now = [figure("calls", 120), figure("drain", 50), figure("idle.wakes", 9), figure("within", 2, unit="ms")]

    (found,) = pair([(before, now), (before, now)])

    assert (found.name, found.before, found.now) == ("calls", [100, 100], [120, 120])
    assert found.told.split() == ["calls", "100/s", "120/s", "1.20", "calls"]
    assert evidence({}, "af1e", [found])["share of the speed that is left"] == {"calls": 1.2}


def tree(folder: Path, value: float) -> Path:
    """Return a version whose bench measures nothing, and says so much."""
    (folder / "bench").mkdir(parents=True)
    (folder / "bench" / "__init__.py").write_text("")
    (folder / "bench" / "figures.py").write_text(
        "Plan = lambda folder, rounds, quick, say: (rounds, quick)\n"
    )
    (folder / "bench" / "__main__.py").write_text(
        "from types import SimpleNamespace\n"
        "def calls(plan):\n"
        "    assert plan == (1, True)\n"
        f"    return [SimpleNamespace(name='calls', what='calls', unit='/s', samples=[{value}])]\n"
        "MEASURES = {'calls': calls}\n"
    )
    return folder


def test_both_are_measured_and_less_than_nine_tenths_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unpack(commit: str, folder: Path) -> str:
        tree(folder, 100.0)
        return f"the whole name of {commit}"

    monkeypatch.setattr(against, "_unpack", unpack)
    monkeypatch.setattr(against, "ROOT", tree(tmp_path / "now", 89.0))
    kept = tmp_path / "kept.json"

    assert main(["af1e", "calls", "--quick", "--rounds", "2", "--keep", str(kept)]) == 1

    assert capsys.readouterr().out.endswith("0 of 1 have at least 0.9 of their speed left\n")
    found = json.loads(kept.read_text())
    assert found["before"] == "the whole name of af1e"
    assert found["samples"]["calls"] == {"unit": "/s", "before": [100.0] * 2, "now": [89.0] * 2}


def test_a_version_that_fails_says_how(tmp_path: Path) -> None:
    with pytest.raises(AgainstError, match="KeyError: 'nothing'"):
        measure(tree(tmp_path / "old", 1.0), "nothing", tmp_path, quick=True)


def test_a_commit_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-commit"]) == 2
    assert "there is no commit 'no-such-commit' here" in capsys.readouterr().err
