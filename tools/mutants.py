"""Sabotage Everloop in many small ways, one by one, and see that the tests notice each.

    python tools/mutants.py [WORDS]    all mutants, or those with these words in their names

Each is put into a copy of the tree, where the tests that are named with it must fail. One that survives is
shown with its difference, and the program ends with 1.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Run as a program, this folder is where modules are looked for; the mutants are beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.mutants.sabotage import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parent.parent
#: What tests need of the tree.
COPIED = ("src", "tests", "tools", "examples", "pyproject.toml")
#: Seconds after which tests that hang have noticed, too.
LIMIT_S = 180
#: pytest ends with it when tests have failed; anything else is a mutant that cannot even be tried.
FAILED = 1


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        caught: Whether the tests failed.
        why: What pytest said in its last line, or why it could not say anything.
    """

    mutant: Mutant
    caught: bool
    why: str
    seconds: float


def copy(folder: Path) -> Path:
    """Copy the tree, to be sabotaged there."""
    tree = folder / "tree"
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / name)
    return tree


def mutated(mutant: Mutant, text: str) -> str:
    """Return a file's text with the sabotage in it.

    Raises:
        ValueError: What it replaces does not stand there exactly once.
    """
    found = text.count(mutant.old)
    if found != 1:
        raise ValueError(
            f"{mutant.name!r} replaces a text that stands {found} times in {mutant.file}, not once: bring "
            f"tests/mutants/sabotage.py up to date\n{mutant.old}"
        )
    return text.replace(mutant.old, mutant.new)


def difference(mutant: Mutant) -> str:
    """Show a mutant as a patch."""
    before = (ROOT / mutant.file).read_text(encoding="utf-8")
    after = mutated(mutant, before)
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), mutant.file, mutant.file, n=2
    )
    return "".join(lines)


def run(tree: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run tests of a copy of the tree, on the package that is in it."""
    environment = os.environ | {
        "PYTHONPATH": f"{tree / 'src'}{os.pathsep}{tree}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    scratch = tree.parent / "scratch"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--basetemp={scratch}",
        *tests,
    ]
    return subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def judge(tree: Path, mutant: Mutant) -> Verdict:
    """Put a mutant into a copy of the tree, run its tests, and take it out again."""
    path = tree / mutant.file
    sound = path.read_text(encoding="utf-8")
    path.write_text(mutated(mutant, sound), encoding="utf-8")
    started = time.monotonic()
    try:
        done = run(tree, mutant.tests)
    except subprocess.TimeoutExpired:
        return Verdict(mutant, caught=True, why="its tests hang", seconds=time.monotonic() - started)
    finally:
        path.write_text(sound, encoding="utf-8")
    told = done.stdout.strip().splitlines()
    last = told[-1] if told else done.stderr.strip()
    return Verdict(mutant, done.returncode == FAILED, last, time.monotonic() - started)


def judge_all(mutants: Sequence[Mutant]) -> list[Verdict]:
    """Judge them one after the other, and print each verdict as it comes."""
    verdicts: list[Verdict] = []
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    with tempfile.TemporaryDirectory(
        dir=memory if memory.is_dir() else None, prefix="everloop-mutants-"
    ) as name:
        tree = copy(Path(name))
        for mutant in mutants:
            verdict = judge(tree, mutant)
            verdicts.append(verdict)
            word = "caught" if verdict.caught else "SURVIVED"
            print(f"{word:>9} {verdict.seconds:5.1f} s  {mutant.name}", flush=True)
            if not verdict.caught:
                print(f"{difference(mutant)}\n{' '.join(mutant.tests)}\n{verdict.why}\n", flush=True)
    return verdicts


def main(words: list[str]) -> int:
    """Judge the mutants that are wanted; return 0 when all are caught."""
    wanted = [mutant for mutant in MUTANTS if " ".join(words) in mutant.name]
    verdicts = judge_all(wanted)
    survived = [verdict.mutant.name for verdict in verdicts if not verdict.caught]
    print(f"{len(verdicts) - len(survived)} caught, {len(survived)} survived")
    folder = os.environ.get("EVERLOOP_EVIDENCE")
    if folder:
        found = {"mutants": len(verdicts), "caught": len(verdicts) - len(survived), "survived": survived}
        Path(folder, "mutants.json").write_text(json.dumps(found), encoding="utf-8")
    return 1 if survived or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
