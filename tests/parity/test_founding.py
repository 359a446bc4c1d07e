"""The founding programs print what their plain twins print: embedded, and with a worker of its own.

`EVERLOOP_TEST_SECOND=1` runs them at their real speed; by default a second takes three tenths of one.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.processes import Ran, importing_from, run_program, worker
from tests.helpers.site import slow_site

FOUNDING = Path(__file__).resolve().parents[2] / "examples" / "founding"
SECOND = float(os.environ.get("EVERLOOP_TEST_SECOND", "0.3"))
#: What a program may take beyond its sleeps, in real seconds: too little to sleep in turn instead of at once.
SLACK = 2.5 * SECOND
#: A busy machine may be late, but not each time.
ATTEMPTS = 4

#: Each program, and the seconds that it measures.
PROGRAMS: dict[str, float | None] = {
    "p1_fetch": 4,
    "p2_pool": None,
    "p3_task": 2,
    "p4_callback": 2,
    "p5_in_turn": 7,
    "p6_at_once": 4,
    "p7_nested": 4,
    "p8_returning": 4,
    "p9_comprehension": 4,
}

#: What program 1 was written with: from Python 3.14 on nobody makes the loop that it asks for.
ASKED, NOW = "asyncio.get_event_loop().run_until_complete(main())", "asyncio.run(main())"

every_program = pytest.mark.parametrize("program", PROGRAMS)


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with slow_site(SECOND) as url:
        yield url


@pytest.fixture(scope="module")
def twins(site: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ran]:
    """Run the plain twin of a program, once."""

    @functools.cache
    def ran(program: str) -> Ran:
        folder = tmp_path_factory.mktemp("twin")
        twin = of_today(f"{program}_asyncio", folder)
        return run_program(twin, folder=folder, env=environment_in(folder, site)).checked()

    return ran


@pytest.fixture
def env(site: str, tmp_path: Path) -> dict[str, str]:
    return environment_in(tmp_path, site)


def environment_in(folder: Path, site: str) -> dict[str, str]:
    return {
        "SITE": site,
        "SECOND": str(SECOND),
        "DATABASE": f"sqlite+aiosqlite:///{folder}/pages.db",
        "EVERLOOP_STORE": f"sqlite:///{folder}/store.db",
        # `asyncio.get_event_loop()` without a loop is what program 1 shows.
        "PYTHONWARNINGS": "error,ignore::DeprecationWarning:__main__",
        **importing_from(FOUNDING),
    }


def of_today(program: str, folder: Path) -> Path:
    """Return the program; from Python 3.14 on a copy of it, if it has the line that asyncio wants changed."""
    path = FOUNDING / f"{program}.py"
    source = path.read_text(encoding="utf-8")
    if sys.version_info < (3, 14) or ASKED not in source:
        return path
    copy = folder / path.name
    copy.write_text(source.replace(ASKED, NOW), encoding="utf-8")
    return copy


@every_program
def test_embedded_a_program_prints_what_its_twin_prints(
    program: str, twins: Callable[[str], Ran], env: dict[str, str], tmp_path: Path
) -> None:
    for attempt in range(ATTEMPTS):
        ours = run_program(
            of_today(program, tmp_path), folder=tmp_path, env=env, name=f"ours{attempt}"
        ).checked()

        assert untimed(ours) == untimed(twins(program))
        assert ours.err.count("this process runs its tasks itself") == 1
        if in_time(program, ours):
            return
    pytest.fail(f"late each time: {ours.out}")


@every_program
def test_with_a_worker_of_its_own_too(
    program: str, twins: Callable[[str], Ran], env: dict[str, str], tmp_path: Path
) -> None:
    for attempt in range(ATTEMPTS):
        # One file for the output of both, as if they ran in one terminal.
        name = f"ours{attempt}"
        with worker(f"{program}:app", folder=tmp_path, env=env, name=name):
            ours = run_program(of_today(program, tmp_path), folder=tmp_path, env=env, name=name).checked()

        assert untimed(ours) == untimed(twins(program))
        assert [line for line in ours.err.splitlines() if "worker ready" not in line] == []
        if in_time(program, ours):
            return
    pytest.fail(f"late each time: {ours.out}")


@every_program
def test_only_the_decorator_and_the_app_differ(program: str) -> None:
    ours = ast.parse((FOUNDING / f"{program}.py").read_text(encoding="utf-8"))
    twin = ast.parse((FOUNDING / f"{program}_asyncio.py").read_text(encoding="utf-8"))

    if program == "p2_pool":
        # Its functions are given their connection instead of asking the pool for it.
        assert names(ours) == names(twin)
    else:
        assert ast.unparse(plain(ours)) == ast.unparse(plain(twin))


def untimed(ran: Ran) -> list[str]:
    """Return what was printed, without the time taken."""
    return [re.sub(r"^TIME: [0-9.]+ s$", "TIME", line) for line in ran.lines]


def in_time(program: str, ran: Ran) -> bool:
    """Tell whether a program took about as long as it should; never may it take less."""
    seconds = PROGRAMS[program]
    if seconds is None:
        return True
    (text,) = re.findall(r"^TIME: ([0-9.]+) s$", ran.out, re.MULTILINE)
    # Printed with two digits, and timers may be early by a clock's tick.
    assert float(text) >= seconds * SECOND - 0.02
    return float(text) <= seconds * SECOND + SLACK


def plain(program: ast.Module) -> ast.Module:
    """Take docstring, app and decorators away."""
    body = [
        each
        for each in program.body[1:]
        if "App(" not in ast.unparse(each) and "import App" not in ast.unparse(each)
    ]
    for each in body:
        if isinstance(each, ast.AsyncFunctionDef):
            each.decorator_list = [d for d in each.decorator_list if ast.unparse(d) != "app.task"]
    return ast.Module(body, [])


def names(program: ast.Module) -> list[str]:
    """Return the names of the functions, in order."""
    return [each.name for each in program.body if isinstance(each, ast.AsyncFunctionDef)]
