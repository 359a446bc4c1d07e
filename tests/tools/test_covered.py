"""`make test` fails when a part of the package has a branch that no test takes, and says which."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import covered
import pytest
import suites

#: A package with two branches in each of its parts.
SOURCE = "def positive(number):\n    if number > 0:\n        return True\n    return False\n"
TEST = "from everloop.{part} import one\n\ndef test_{name}():\n    assert one.positive(1)\n"
OTHER = "    assert not one.positive(0)\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (covered, suites):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(suites, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(suites, "MEASURED_DATA", tmp_path / "data")
    monkeypatch.setattr(suites, "MEASURED", ("unit",))
    monkeypatch.delenv("EVERLOOP_SKIP_SERVERS", raising=False)
    for part in covered.FLOORS:
        folder = tmp_path / "src" / "everloop" / part
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "one.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "src" / "everloop" / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest]\npythonpath = ['src']\naddopts = ['-p', 'no:asyncio']\n"
        "[tool.coverage.run]\nbranch = true\nparallel = true\nsource = ['src']\n"
        "[tool.coverage.report]\nshow_missing = true\n",
        encoding="utf-8",
    )
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    return tmp_path


def write_tests(project: Path, *whole: str) -> None:
    """Test every part, and both branches of those that are named."""
    for part in covered.FLOORS:
        source = TEST.format(part=part, name=part.strip("_")) + (OTHER if part in whole else "")
        (project / "tests" / "unit" / f"test_{part.strip('_')}.py").write_text(source, encoding="utf-8")


def measure(project: Path, *whole: str) -> None:
    """Leave what tests of every part would, which take both branches of those that are named."""
    lines = [f"from everloop.{part} import one as {part}; {part}.positive(1)" for part in covered.FLOORS]
    lines += [f"{part}.positive(0)" for part in whole]
    (project / "program.py").write_text("\n".join(lines), encoding="utf-8")
    data = f"--data-file={suites.MEASURED_DATA / suites.MEASURED_AS}"
    command = [sys.executable, "-m", "coverage", "run", data, "program.py"]
    covered.begin()
    subprocess.run(command, cwd=project, env=os.environ | {"PYTHONPATH": "src"}, check=True)


def test_what_takes_every_branch_is_enough(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measure(project, "_core", "store", "engine")

    assert covered.judge() == []
    assert capsys.readouterr().out.splitlines() == [
        "coverage of _core: 100.00 %, at least 100 %",
        "coverage of store: 100.00 %, at least 100 %",
        "coverage of engine: 100.00 %, at least 95 %",
    ]


def test_a_branch_that_nothing_takes_is_named(project: Path) -> None:
    measure(project, "_core", "engine")

    table, *rest = covered.judge()

    assert "src/everloop/store/one.py" in table.splitlines()[2] and table.splitlines()[2].endswith("  4")
    assert rest == ["coverage of store: 66.67 %, not 100 %"]


def test_what_was_measured_before_counts_no_more(project: Path) -> None:
    measure(project, "_core", "store", "engine")
    measure(project, "_core", "store")

    assert covered.judge()[-1] == "coverage of engine: 66.67 %, not 95 %"


def test_without_servers_the_store_is_not_judged(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure(project, "_core", "engine")
    monkeypatch.setenv("EVERLOOP_SKIP_SERVERS", "1")

    assert covered.judge() == []
    assert "coverage of store: NOT JUDGED, because EVERLOOP_SKIP_SERVERS=1" in capsys.readouterr().out


def test_nothing_measured_is_a_complaint(project: Path) -> None:
    covered.begin()

    (complaint,) = covered.judge()

    assert complaint.startswith(f"coverage: the suites have left nothing to judge in {project / 'data'}: ")


@pytest.mark.timeout(300)  # a pytest in a pytest, on a machine that does much else
def test_the_measured_suites_run_by_themselves(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tests(project, "_core", "store")

    assert covered.main() == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "coverage of engine: 66.67 %, not 95 %",
        "3 passed, 0 failed, 0 skipped",
    ]
