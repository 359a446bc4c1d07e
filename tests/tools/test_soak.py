"""Long runs, and that parts of one add up while the code is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soak

#: Adds one to what it finds.
COUNT = """
import json, os, pathlib
path = pathlib.Path(os.environ["EVERLOOP_EVIDENCE"], "count.json")
kept = json.loads(path.read_text()) if path.exists() else {"parts": 0}
path.write_text(json.dumps({"parts": kept["parts"] + 1}))
"""


@pytest.fixture(params=[True, False], ids=["adds up by itself", "is added up"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    source: dict[str, Any] = {"commit": "c0ffee", "clean": True, "code": {"src": "1"}}
    monkeypatch.setattr(soak, "ROOT", tmp_path)
    monkeypatch.setattr(soak, "EVIDENCE", tmp_path / "evidence")
    monkeypatch.setattr(soak, "SOAKS", {"count": soak.Soak(("-c", COUNT), {}, joins=request.param)})
    monkeypatch.setattr(soak, "_source", lambda _: dict(source))
    return source


def _found(tmp_path: Path) -> list[tuple[str, int]]:
    files = sorted((tmp_path / "evidence").iterdir())
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    return [(each["commit"], each["found"]["count"]["parts"]) for each in kept]


def test_parts_add_up_on_the_same_code_whatever_the_commit(source: dict[str, Any], tmp_path: Path) -> None:
    assert soak.soak("count")
    source["commit"] = "decaf0"  # evidence was committed, say
    assert soak.soak("count")

    assert _found(tmp_path) == [("decaf0", 2)]
    (path,) = (tmp_path / "evidence").iterdir()
    assert len(json.loads(path.read_text(encoding="utf-8"))["seeds"]) == 2


def test_a_part_of_another_day_stands_in_the_new_file_alone(source: dict[str, Any], tmp_path: Path) -> None:
    assert soak.soak("count")
    (path,) = (tmp_path / "evidence").iterdir()
    path.rename(path.with_name("count-2026-01-01.json"))

    assert soak.soak("count")

    assert [each.name for each in (tmp_path / "evidence").iterdir()] == [path.name]
    assert _found(tmp_path) == [("c0ffee", 2)]


@pytest.mark.parametrize("change", [{"code": {"src": "2"}}, {"clean": False}])
def test_other_code_begins_anew(change: dict[str, Any], source: dict[str, Any], tmp_path: Path) -> None:
    assert soak.soak("count")
    source.update(change)
    assert soak.soak("count")

    assert _found(tmp_path) == [("c0ffee", 1)]
