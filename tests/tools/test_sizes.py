"""The size ratchet holds, and goes down only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sizes


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one file, with a function of 62 lines in a class."""
    monkeypatch.setattr(sizes, "ROOT", tmp_path)
    monkeypatch.setattr(sizes, "BASELINE", tmp_path / "sizes.json")
    (tmp_path / "src").mkdir()
    body = "        x = 1\n" * 61
    (tmp_path / "src" / "shop.py").write_text(f"class Shop:\n    def sell(self):\n{body}", encoding="utf-8")
    return tmp_path


def baseline(project: Path, **sizes_by_key: int) -> None:
    (project / "sizes.json").write_text(json.dumps(sizes_by_key), encoding="utf-8")


KEY = "src/shop.py:Shop.sell"


def test_what_is_too_large_fails(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline(project)

    assert sizes.main([]) == 1
    assert capsys.readouterr().out == f"{KEY}: a function of 62 lines, over 60: find its second noun\n"


def test_the_baseline_allows_what_it_lists(project: Path) -> None:
    baseline(project, **{KEY: 62})

    assert sizes.main([]) == 0


def test_what_is_listed_does_not_grow(project: Path) -> None:
    baseline(project, **{KEY: 61})

    assert sizes.main([]) == 1


@pytest.mark.parametrize("stale", [{KEY: 70}, {KEY: 62, "src/gone.py": 600}, {KEY: 62, "src/shop.py": 600}])
def test_the_baseline_is_no_larger_than_the_truth(project: Path, stale: dict[str, int]) -> None:
    baseline(project, **stale)

    assert sizes.main([]) == 1
    assert sizes.main(["--tighten"]) == 0
    assert json.loads((project / "sizes.json").read_text(encoding="utf-8")) == {KEY: 62}


def test_tightening_allows_nothing_new(project: Path) -> None:
    baseline(project)

    assert sizes.main(["--tighten"]) == 1
    assert json.loads((project / "sizes.json").read_text(encoding="utf-8")) == {}
