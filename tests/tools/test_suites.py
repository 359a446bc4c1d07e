"""A suite is counted, and one in which nothing ran is a failure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import suites

PASSES = "def test_a():\n    pass\n"
FAILS = "def test_b():\n    assert False\n"
SKIPS = "import pytest\n\ndef test_c():\n    pytest.skip('no server')\n"
BREAKS = "import pytest\n\n@pytest.fixture\ndef broken():\n    1 / 0\n\ndef test_d(broken):\n    pass\n"
KILLS = "import os\n\ndef test_e():\n    os._exit(9)\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(suites, "ROOT", tmp_path)
    monkeypatch.setattr(suites, "RESULTS", tmp_path / "results")
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:asyncio\n", encoding="utf-8")
    return tmp_path


def run(project: Path, *sources: str) -> tuple[int, int, int]:
    """Run a suite of these files; return how many passed, failed and were skipped."""
    for number, source in enumerate(sources):
        (project / "tests" / "unit" / f"test_{number}.py").write_text(source, encoding="utf-8")
    tally = suites.run(suites.Suite("unit", Path(sys.executable)))
    assert bool(tally.complaints) == bool(tally.failed)
    return tally.passed, tally.failed, tally.skipped


@pytest.mark.parametrize(
    ("sources", "counts"),
    [
        ((PASSES,), (1, 0, 0)),
        ((PASSES, FAILS, SKIPS, BREAKS), (1, 2, 1)),
        ((SKIPS,), (0, 1, 1)),
        ((), (0, 1, 0)),
        (("import no_such_module\n",), (0, 1, 0)),
        ((KILLS,), (0, 1, 0)),
    ],
    ids=["all passed", "some of each", "all skipped", "no tests", "not collected", "pytest died"],
)
def test_a_suite_is_counted(project: Path, sources: tuple[str, ...], counts: tuple[int, int, int]) -> None:
    assert run(project, *sources) == counts


def test_sources_are_compiled_once_for_each_interpreter(project: Path) -> None:
    for folder in ("src", "examples", "tests"):
        (project / folder).mkdir(exist_ok=True)
        (project / folder / "module.py").write_text("x = 1\n", encoding="utf-8")
    (project / "src" / "broken.py").write_text("x =\n", encoding="utf-8")

    suites.compile_all([suites.Suite("unit", Path(sys.executable))] * 2)

    tag = f"{sys.implementation.cache_tag}.pyc"
    assert {path.relative_to(project).as_posix() for path in project.rglob("*.pyc")} == {
        f"{folder}/__pycache__/module.{tag}" for folder in ("src", "examples", "tests")
    }


def test_a_suite_that_hangs_is_a_failure(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "LIMIT_S", 0.01)

    assert run(project, PASSES) == (0, 1, 0)


def test_a_folder_with_tests_is_a_suite_and_quick_ones_come_first(project: Path) -> None:
    for name in ("stores", "parity", "soak", "unit"):  # what soaks runs by `make soak` alone
        (project / "tests" / name / "deep").mkdir(parents=True)
        (project / "tests" / name / "deep" / "test_x.py").touch()
    (project / "tests" / "support").mkdir()

    assert suites.names() == ["unit", "parity", "stores"]


def test_the_plan_covers_every_python(project: Path) -> None:
    for name in ("cli", "stores", "unit"):
        (project / "tests" / name).mkdir(exist_ok=True)
        (project / "tests" / name / "test_x.py").touch()
    (project / ".venv-3.9" / "bin").mkdir(parents=True)
    (project / ".venv-3.9" / "bin" / "python").touch()

    assert [suite.title for suite in suites.plan(everything=False)] == ["unit"]
    assert [suite.title for suite in suites.plan(everything=True)] == [
        "unit",
        "cli",
        "stores",
        "unit (Python 3.9)",
        "stores (Python 3.9)",
    ]
    assert [suite.measured for suite in suites.plan(everything=False)] == [False]
    assert [suite.measured for suite in suites.plan(everything=True)] == [True, False, True, False, False]
    assert [suite.servers for suite in suites.plan(everything=False)] == [False]
    assert [suite.servers for suite in suites.plan(everything=True)] == [True, True, True, False, False]


SERVED = """
import pytest

@pytest.fixture(scope="session")
def server(record_testsuite_property):
    record_testsuite_property("server", "MySQL, which calls itself 9.7.4")

def test_f(server):
    pass
"""


def test_suites_that_are_named_run_on_this_python_and_tell_the_servers(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "tests" / "unit" / "test_0.py").write_text(SERVED, encoding="utf-8")
    (project / "tests" / "stores").mkdir()
    (project / "tests" / "stores" / "test_0.py").write_text(PASSES + FAILS, encoding="utf-8")

    assert suites.main(["unit"]) == 0
    assert suites.main(["unit", "stores"]) == 1

    python = ".".join(map(str, sys.version_info[:3]))
    assert capsys.readouterr().out.splitlines()[-4:] == [
        f"ran on Python {python}",
        "ran on MySQL, which calls itself 9.7.4",
        "stores: 1 failed",
        "2 passed, 1 failed, 0 skipped",
    ]


KILLED = """
import pytest

@pytest.fixture(autouse=True, scope="session")
def killed(record_testsuite_property):
    yield
    record_testsuite_property("kills: SIGKILL", {times})

def test_g():
    pass
"""


def test_kills_are_added_up_and_fewer_than_sixty_are_a_failure(project: Path) -> None:
    for name, times in (("unit", 50), ("stores", 9)):
        (project / "tests" / name).mkdir(exist_ok=True)
        (project / "tests" / name / "test_0.py").write_text(KILLED.format(times=times), encoding="utf-8")
    tally = suites.Tally()
    for suite in suites.plan(everything=True):
        tally.add(suites.run(suite))
    tally.expect_kills()

    assert tally.told().splitlines() == [
        "59 real kills: 59 x SIGKILL",
        "59 real kills, which is a failure: 60 are the least",
        "2 passed, 1 failed, 0 skipped",
    ]
    tally = suites.Tally(passed=2)
    tally.kills["SIGKILL"] = 60
    tally.expect_kills()
    assert tally.told().splitlines() == ["60 real kills: 60 x SIGKILL", "2 passed, 0 failed, 0 skipped"]


def test_a_suite_that_is_not_there_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "tests" / "unit" / "test_0.py").write_text(PASSES, encoding="utf-8")

    assert suites.main(["units"]) == 2
    assert suites.main([]) == 2

    assert capsys.readouterr().out.splitlines() == [
        "there is no suite 'units'; there are: unit",
        "name the suites to run; there are: unit",
    ]
