"""Every python block of a document runs; every command that one shows exists."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from everloop.cli.group import group
from everloop.testing.conformance import CASES
from tests.docs.blocks import DOCUMENTS, ROOT, Block, of_document
from tests.docs.scenes import Scene, commands, play, scenes

BLOCKS = [block for path in DOCUMENTS for block in of_document(path)]
SCENES = [scene for path in DOCUMENTS for scene in scenes(of_document(path))]
CONSOLES = [block for block in BLOCKS if block.language == "console"]


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(scene, id=scene.place, marks=pytest.mark.server if scene.server else ())
        for scene in SCENES
    ],
)
def test_programs_run(scene: Scene, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    play(scene, tmp_path, request.getfixturevalue(f"{scene.server}_url") if scene.server else "")


def test_programs_that_are_not_run_compile() -> None:
    for block in BLOCKS:
        if "no-run" in block.directives:
            compile(block.text, block.place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("block", CONSOLES, ids=lambda block: block.place)
def test_commands_exist(block: Block) -> None:
    lines = [command for command, _ in commands(block.text)]

    assert lines, f"{block.place}: a command begins with `$ `"
    for line in lines:
        for words in segments(line):
            assert not (unknown := missing(words)), f"{block.place}: `{' '.join(words)}`: {unknown}"


def test_languages_have_one_spelling() -> None:
    """Nothing escapes by another name: programs are `python`, commands `console`."""
    others = {"py", "python3", "pycon", "bash", "sh", "shell", "zsh"}

    assert [block.place for block in BLOCKS if block.language in others] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_linked_exist(path: Path) -> None:
    linked = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text("utf-8"))

    assert [name for name in linked if not (path.parent / name).exists()] == []


def test_tests_that_are_named_exist() -> None:
    """`engine/test_slots.py::test_counts_of_slots` stands for itself; `case: NAME` for one of the suite's."""
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+/test_\w+\.py)::(\w+)`", text)
    cases = re.findall(r"`case: ([^`]+)`", text)

    assert len(named) > 80
    assert [f"{file}::{name}" for file, name in named if not defines(ROOT / "tests" / file, name)] == []
    assert [case for case in cases if case not in {known.name for known in CASES}] == []


def defines(file: Path, name: str) -> bool:
    return file.exists() and f"def {name}(" in file.read_text(encoding="utf-8")


def segments(line: str) -> Iterator[list[str]]:
    """Yield the commands of a line of shell, each without the variables that it sets."""
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), ";"]:
        if word not in {"|", "||", "&&", "&", ";"}:
            if words or not re.match(r"\w+=", word):
                words.append(word)
        elif words:
            yield words
            words = []


def missing(words: list[str]) -> str | None:
    """Return what a command names and we do not have."""
    match words:
        case ["everloop", *rest]:
            return missing_option(group, rest)
        case ["make", *rest]:
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
            return next((word for word in rest if "=" not in word and word not in targets), None)
        case ["pip" | "uv", *rest]:
            asked = re.findall(r"everloop\[([\w,]+)\]", " ".join(rest))
            return next(
                (extra for extra in ",".join(asked).split(",") if extra and extra not in extras()), None
            )
        case ["python", path, *_] if path.endswith(".py") and path.startswith(
            ("examples/", "tools/", "bench/")
        ):
            return None if (ROOT / path).exists() else path
    return None


def missing_option(command: click.Command, words: list[str]) -> str | None:
    """Return the first sub-command or option that the command line does not know."""
    if isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        return missing_option(found, words[1:]) if found else words[0]
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
    return next((option for option in options if option not in known | {"--help"}), None)


def extras() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return set(project["optional-dependencies"])
