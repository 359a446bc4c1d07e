"""The static checks, two at a time; each line that one prints bears its name."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

#: What mypy reads; what it is to a user (examples, typing) as strictly as the source.
TYPED = ("src", "tools", "bench", "examples", "tests/typing")


@dataclass(frozen=True)
class Lint:
    """A command that prints what is wrong and ends with 0 when nothing is."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What became of one."""

    lint: Lint
    ok: bool
    output: str
    seconds: float


def lints() -> list[Lint]:
    """Return the checks, the slow ones first."""
    typed = [folder for folder in TYPED if any((ROOT / folder).rglob("*.py"))]
    return [
        Lint("mypy", ("mypy", "--no-error-summary", *typed)),
        Lint("basedpyright", ("basedpyright",)),
        Lint("layers", ("lint-imports", "--no-logo")),
        Lint("format", ("ruff", "format", "--check", "--quiet", "--diff")),
        Lint("ruff", ("ruff", "check", "--quiet")),
        Lint("sizes", ("python", "tools/sizes.py")),
    ]


def run(lint: Lint) -> Verdict:
    started = time.monotonic()
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    done = subprocess.run(
        [str(BIN / lint.command[0]), *lint.command[1:]],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Verdict(lint, done.returncode == 0, done.stdout, time.monotonic() - started)


def run_all() -> list[str]:
    """Run them all, print what is wrong, and return the names of those that found something."""
    broken = []
    with ThreadPoolExecutor(2) as pool:
        for verdict in pool.map(run, lints()):
            name = verdict.lint.name
            if not verdict.ok:
                broken.append(name)
                for line in verdict.output.rstrip().splitlines():
                    print(f"{name:>12} | {line}")
            print(f"{name:>12} {'ok' if verdict.ok else 'FAILED'} ({verdict.seconds:.1f} s)", flush=True)
    return broken


if __name__ == "__main__":
    sys.exit(1 if run_all() else 0)
