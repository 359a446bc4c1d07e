"""Run the long versions of tests, and write down what they found.

    python tools/soak.py [NAMES]    all, or those that are named

Each runs for as long as it takes, up to an hour, and leaves a file `docs/evidence/NAME-DATE.json` when it has
found nothing wrong: what was done and how often, with which seeds, on which commit. The program ends with 1
when one has failed.
"""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EVIDENCE = ROOT / "docs" / "evidence"
PYTEST = ("-m", "pytest", "-q", "-s")


@dataclass(frozen=True)
class Soak:
    """A long run.

    Attributes:
        command: Arguments of Python. What it finds it writes as JSON into the folder EVERLOOP_EVIDENCE.
        settings: The environment that makes it long, beside an EVERLOOP_SEED by chance; what is set already
            stays.
    """

    command: tuple[str, ...]
    settings: dict[str, str]


SOAKS = {
    "machines": Soak((*PYTEST, "tests/machines"), {"EVERLOOP_MACHINE_STEPS": "1000000"}),
    "powerloss": Soak((*PYTEST, "tests/powerloss/test_power_loss.py"), {"EVERLOOP_IMAGES": "10000"}),
    "mutants": Soak(("tools/mutants.py",), {}),
    "transaction": Soak((*PYTEST, "tests/soak/test_open_transaction.py"), {"EVERLOOP_SOAK_S": "600"}),
    "simulation": Soak(("-m", "tests.sim", "--soak"), {}),
}


def soak(name: str) -> bool:
    """Run one and write its evidence; tell whether it found nothing wrong."""
    print(f"--- {name}", flush=True)
    started, source = time.monotonic(), _source()
    with tempfile.TemporaryDirectory() as folder:
        drawn = SOAKS[name].settings | {"EVERLOOP_SEED": str(random.randrange(1, 1 << 30))}  # noqa: S311 - no secret
        environment = drawn | os.environ | {"EVERLOOP_EVIDENCE": folder}
        done = subprocess.run([sys.executable, *SOAKS[name].command], cwd=ROOT, env=environment, check=False)
        found = {
            path.stem: json.loads(path.read_text(encoding="utf-8")) for path in Path(folder).glob("*.json")
        }
    if done.returncode or not found:
        print(f"{name}: FAILED (ended with {done.returncode}, {len(found)} findings)", flush=True)
        return False
    path = write(
        name,
        source
        | {
            "seed": int(environment["EVERLOOP_SEED"]),
            "seconds": round(time.monotonic() - started),
            "found": found,
        },
    )
    print(f"{name}: {path.relative_to(ROOT)}", flush=True)
    return True


def write(name: str, found: dict[str, Any]) -> Path:
    """Write evidence, with what is needed to find it again."""
    now = datetime.now(UTC)
    EVIDENCE.mkdir(exist_ok=True)
    path = EVIDENCE / f"{name}-{now:%Y-%m-%d}.json"
    evidence = {
        "what": name,
        "date": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        **found,
    }
    path.write_text(json.dumps(evidence, indent=2) + "\n", encoding="utf-8")
    return path


def _source() -> dict[str, Any]:
    """Tell what is run: the commit, and whether the files are as they are there."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "clean": not _git("status", "--porcelain", "--untracked-files=no"),
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main(names: list[str]) -> int:
    """Run the soaks that are named; return 0 when none has found anything wrong."""
    unknown = [name for name in names if name not in SOAKS]
    if unknown:
        print(f"there is no soak {', '.join(unknown)}; there are {', '.join(SOAKS)}", file=sys.stderr)
        return 2
    well = [soak(name) for name in names or SOAKS]  # all of them, whatever one has found
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
