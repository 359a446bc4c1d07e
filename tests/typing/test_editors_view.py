"""Three checkers read programs as a user's project, and say what is expected of them, word for word."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import everloop

HERE = Path(__file__).parent
SOURCE = Path(everloop.__file__).parents[1]
BIN = Path(sys.executable).parent
CACHE = HERE.parents[1] / ".mypy_cache" / "as-a-user"

#: A line that says so is underlined for just these reasons.
MISTAKE = re.compile(r"# in mypy: (?P<mypy>[a-z -]+); in pyright: (?P<pyright>[A-Za-z ]+)$")
#: What is seen where the pointer rests on the expression of the line before.
SHOWN = re.compile(r"^ +# (?:in (?P<checker>mypy|pyright): )?(?P<type>.+)$")
#: What follows from a first error in the same line.
CONSEQUENCES = {"untyped-decorator", "reportUnknownMemberType", "reportUntypedFunctionDecorator"}


@dataclass
class Verdict:
    """What a checker said: the rules broken, and the types revealed, by file and line."""

    errors: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    types: dict[str, dict[int, str]] = field(default_factory=dict)

    def error(self, file: str, line: int, rule: str, text: str) -> None:
        if rule not in CONSEQUENCES:
            self.errors.setdefault(Path(file).name, {}).setdefault(line, set()).add(rule or text)

    def revealed(self, file: str, line: int, text: str) -> None:
        self.types.setdefault(Path(file).name, {})[line] = text


def mypy(project: Path) -> Verdict:
    """Run mypy with --strict, as on a user's project."""
    options = ["--config-file=", "--strict", "--follow-imports=silent", f"--cache-dir={CACHE}", "-O", "json"]
    output = _run([_tool("mypy"), *options, "."], project)
    verdict = Verdict()
    for said in (json.loads(line) for line in output.splitlines() if line.startswith("{")):
        if said["severity"] == "error":
            verdict.error(said["file"], said["line"], said["code"], said["message"])
        elif match := re.fullmatch(r'Revealed type is "(.*)"', said["message"]):
            verdict.revealed(said["file"], said["line"], re.sub(r"\beverloop\.[\w.]*\.", "", match[1]))
    return verdict


def pyright(project: Path) -> Verdict:
    """Run pyright in its strict mode."""
    return _pyright(_tool("pyright"), project)


def basedpyright(project: Path) -> Verdict:
    """Run basedpyright in pyright's strict mode."""
    return _pyright(_tool("basedpyright"), project)


def _pyright(tool: str, project: Path) -> Verdict:
    config = {
        "include": ["."],
        "extraPaths": [str(SOURCE)],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
    }
    (project / "pyrightconfig.json").write_text(json.dumps(config), encoding="utf-8")
    output = _run([tool, "--outputjson", "-p", str(project), "--pythonpath", sys.executable], project)
    verdict = Verdict()
    for said in json.loads(output)["generalDiagnostics"]:
        line, text = said["range"]["start"]["line"] + 1, str(said["message"])
        if said["severity"] != "information":
            verdict.error(said["file"], line, said.get("rule", ""), text)
        elif match := re.fullmatch(r'Type of ".*" is "(.*)"', text, re.DOTALL):
            verdict.revealed(said["file"], line, match[1])
    return verdict


def _tool(name: str) -> str:
    found = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if found is None and name == "pyright":
        pytest.skip("pyright is not installed")
    assert found is not None, f"{name} is not installed: `make check` installs it"
    return found


def _run(command: list[str], project: Path) -> str:
    environment = {**os.environ, "MYPYPATH": str(SOURCE), "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), f"{command[0]} broke: {done.stdout}{done.stderr}"
    return done.stdout


CHECKERS: dict[str, Callable[[Path], Verdict]] = {
    "mypy": mypy,
    "basedpyright": basedpyright,
    "pyright": pyright,
}
every_checker = pytest.mark.parametrize("checker", CHECKERS)


@cache
def verdict(checker: str, folder: str) -> Verdict:
    """Let a checker read a copy of a folder, once."""
    with TemporaryDirectory() as copy:
        project = Path(copy).resolve() / "project"
        shutil.copytree(HERE / folder, project)
        return CHECKERS[checker](project)


def family(checker: str) -> str:
    return "mypy" if checker == "mypy" else "pyright"


@every_checker
def test_nothing_is_said_about_good_programs(checker: str) -> None:
    assert verdict(checker, "programs") == Verdict()


@every_checker
def test_each_mistake_is_underlined_for_its_reason(checker: str) -> None:
    expected: dict[int, set[str]] = {}
    for number, line in enumerate(lines("mistakes.py"), 1):
        if match := MISTAKE.search(line):
            expected[number] = set(match[family(checker)].split())

    assert len(expected) > 20
    assert verdict(checker, "shown").errors == {"mistakes.py": expected}


@every_checker
def test_a_function_a_call_and_a_task_show_their_types(checker: str) -> None:
    expected: dict[int, str] = {}
    statement = 0
    for number, line in enumerate(lines("declared.py"), 1):
        if "reveal_type(" in line:
            statement = number
        elif statement and (match := SHOWN.match(line)) and match["checker"] in (None, family(checker)):
            expected[statement] = match["type"]

    assert len(expected) == sum("reveal_type(" in line for line in lines("declared.py"))
    assert verdict(checker, "shown").types == {"declared.py": expected}


def lines(file: str) -> list[str]:
    return (HERE / "shown" / file).read_text(encoding="utf-8").splitlines()


def test_a_marker_that_nobody_reads_is_noticed() -> None:
    marked: list[Any] = [line for line in lines("mistakes.py") if "# in" in line]

    assert all(MISTAKE.search(line) for line in marked)
