"""Run the long versions of tests, and write down what they found.

    python tools/soak.py [NAMES]    all, or those that are named

Each runs for as long as it takes, up to an hour, and leaves a file `docs/evidence/NAME-DATE.json` when it has
found nothing wrong: what was done and how often, with which seeds, on which commit. The program ends with 1
when one has failed.

A soak may be done in parts: what runs now is added to what ran on the same code before. `EVERLOOP_SOAK_S=600`
ends a part of the simulation after ten minutes; run it again until all schedules are done.
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
from hashlib import sha256
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
        settings: The environment that makes it long, beside an EVERLOOP_SEED by chance;
            what is set already stays.
        code: What it is about: as long as these paths are unchanged, its parts add up.
        apart: Paths below these that it never runs.
        joins: Whether it adds up by itself: it gets what was found before in that folder.
    """

    command: tuple[str, ...]
    settings: dict[str, str]
    code: tuple[str, ...] = ("src", "tests")
    apart: tuple[str, ...] = ()
    joins: bool = False


SOAKS = {
    "machines": Soak((*PYTEST, "tests/machines"), {"EVERLOOP_MACHINE_STEPS": "1000000"}),
    "powerloss": Soak((*PYTEST, "tests/powerloss/test_power_loss.py"), {"EVERLOOP_IMAGES": "10000"}),
    "mutants": Soak(("tools/mutants.py",), {}),
    "transaction": Soak((*PYTEST, "tests/soak/test_open_transaction.py"), {"EVERLOOP_SOAK_S": "600"}),
    "kills": Soak((*PYTEST, "tests/soak/test_kills.py"), {"EVERLOOP_KILLS": "2000"}),
    "outage": Soak((*PYTEST, "tests/soak/test_outage.py"), {"EVERLOOP_OUTAGE_S": "60"}),
    "leaks": Soak((*PYTEST, "tests/leaks/test_leaks.py"), {"EVERLOOP_LEAK_CALLS": "1000000"}),
    "leaks-servers": Soak(
        (*PYTEST, "tests/leaks/test_leaks.py", "-k", "mariadb or postgresql"),
        {"EVERLOOP_LEAK_SERVER_CALLS": "200000"},
    ),
    "simulation": Soak(
        ("-m", "tests.sim", "--soak"),
        {},
        code=("src", "tests/sim"),
        apart=("src/everloop/store/sql",),  # its store is in memory
        joins=True,
    ),
}


def soak(name: str) -> bool:
    """Run one and write its evidence; tell whether it found nothing wrong."""
    print(f"--- {name}", flush=True)
    asked, started, source = SOAKS[name], time.monotonic(), _source(SOAKS[name])
    earlier = _earlier(name, source)
    environment = asked.settings | {"EVERLOOP_SEED": str(random.randrange(1, 1 << 30))} | os.environ  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        if earlier is not None and asked.joins:
            for part, found in _read(earlier)["found"].items():
                Path(folder, f"{part}.json").write_text(json.dumps(found), encoding="utf-8")
        environment["EVERLOOP_EVIDENCE"] = folder
        done = subprocess.run([sys.executable, *asked.command], cwd=ROOT, env=environment, check=False)
        found = {path.stem: _read(path) for path in Path(folder).glob("*.json")}
    if done.returncode or not found:
        print(f"{name}: FAILED (ended with {done.returncode}, {len(found)} findings)", flush=True)
        return False
    counted: dict[str, Any] = {
        "seeds": [int(environment["EVERLOOP_SEED"])],
        "seconds": round(time.monotonic() - started),
    }
    if earlier is not None:
        kept = _read(earlier)
        counted = added({key: kept[key] for key in counted}, counted)
        found = found if asked.joins else added(kept["found"], found)
    path = write(name, source | counted | {"found": found})
    if earlier is not None and earlier != path:
        earlier.unlink()  # all of it stands in the new one
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


def added(one: Any, other: Any) -> Any:
    """Add up what two runs have found: numbers, lists, and what has them under the same names."""
    if isinstance(one, dict) and isinstance(other, dict):
        names: dict[str, Any] = one | other
        return {
            name: added(one[name], other[name]) if name in one and name in other else value
            for name, value in names.items()
        }
    if isinstance(one, str | bool | None) or isinstance(other, str | bool | None):
        return other
    return one + other


def _earlier(name: str, source: dict[str, Any]) -> Path | None:
    """Return the evidence of earlier parts of a soak that ran on the same code."""
    for path in sorted(EVIDENCE.glob(f"{name}-[0-9]*.json"), reverse=True):
        kept = _read(path)
        if kept["clean"] and source["clean"] and kept.get("code") == source["code"]:
            return path
    return None


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _source(asked: Soak) -> dict[str, Any]:
    """Tell what is run: the commit, whether the files are as there, and the hashes of what counts."""
    apart = [f":!{path}" for path in asked.apart]
    listed = {path: _git("ls-files", "--stage", "--", path, *apart) for path in asked.code}
    return {
        "commit": _git("rev-parse", "HEAD"),
        "clean": not _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/evidence"),
        "code": {path: sha256(files.encode()).hexdigest()[:40] for path, files in listed.items()},
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
