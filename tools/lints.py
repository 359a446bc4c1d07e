"""The static checks; each line that one prints bears its name."""

from __future__ import annotations

import os
import subprocess
import sys
import time
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


def passes(lint: Lint) -> bool:
    """Run it, print what it found, and tell whether that was nothing."""
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
    ok = done.returncode == 0
    found = [] if ok else [f"{lint.name:>12} | {line}" for line in done.stdout.rstrip().splitlines()]
    ended = f"{lint.name:>12} {'ok' if ok else 'FAILED'} ({time.monotonic() - started:.1f} s)"
    # In one piece: others print beside it.
    print("\n".join([*found, ended]) + "\n", end="", flush=True)
    return ok
