"""Every example of a docstring runs, and every public name has a docstring."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest

import everloop
from tests.docs.blocks import ROOT, of_module
from tests.docs.scenes import Scene, play, run_command, scenes

SOURCE = ROOT / "src"


def module(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def programs(path: Path) -> list[Scene]:
    """Return the programs in a module's docstrings; they see its names, as its `>>>` examples do."""
    return list(scenes(of_module(path), f"from {module(path)} import *"))


PATHS = sorted(SOURCE.rglob("*.py"))
PROGRAMS = [scene for path in PATHS for scene in programs(path)]
WITH_EXAMPLES = [module(path) for path in PATHS if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("scene", PROGRAMS, ids=lambda scene: scene.place)
def test_programs_run(scene: Scene, tmp_path: Path) -> None:
    play(scene, tmp_path)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_print_what_they_show(name: str, tmp_path: Path) -> None:
    run_command([sys.executable, str(ROOT / "tests/docs/doctests.py"), name], tmp_path, name)


@pytest.mark.parametrize("name", everloop.__all__)
def test_public_names_are_documented(name: str) -> None:
    thing = getattr(everloop, name)
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return
    bare = [] if (thing.__doc__ or "").strip() else [name]
    if inspect.isclass(thing):
        bare += [f"{name}.{member}" for member, value in vars(thing).items() if undocumented(member, value)]

    assert bare == []


def undocumented(name: str, value: object) -> bool:
    """Tell whether a member is public, ours, and without a docstring."""
    callable_or_property = inspect.isroutine(value) or isinstance(value, property)
    return not name.startswith("_") and callable_or_property and not (inspect.getdoc(value) or "").strip()
