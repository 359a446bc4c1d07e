"""A shop whose app the commands use, in a folder of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.processes import Ran, Running, command, environment, run_program, worker

PROGRAMS = Path(__file__).parent / "programs"


class Shop:
    """A folder with an app, a store, and the commands run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = f"sqlite:///{folder}/shop.db"
        self.env = {"EVERLOOP_STORE": self.store, "NO_COLOR": "1", "COLUMNS": ""}
        for path in PROGRAMS.glob("*.py"):
            shutil.copy(path, folder)

    def run(self, *arguments: str, **env: str) -> Ran:
        """Run `everloop` with these arguments; each run has files of its own for its output."""
        name = f"command{time.monotonic_ns()}"
        return command(*arguments, folder=self.folder, env={**self.env, **env}, name=name)

    def run_each(self, lines: Sequence[Sequence[str]], **env: str) -> list[Ran]:
        """Run several command lines; they share the time that it takes to import everything."""
        done = subprocess.run(
            [sys.executable, str(PROGRAMS / "each.py")],
            input=json.dumps([list(line) for line in lines]),
            cwd=self.folder,
            env=environment({**self.env, **env}),
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [Ran(out, err, code) for code, out, err in json.loads(done.stdout)]

    def check_refusals(self, code: int, said: Mapping[tuple[str, ...], str]) -> None:
        """Run command lines that are refused with this code and these words, and nothing on stdout."""
        wrong: list[object] = []
        for (line, words), ran in zip(said.items(), self.run_each(list(said)), strict=True):
            clean = not any(word in ran.err for word in ("Traceback", "never awaited"))
            if (ran.code, ran.out) != (code, "") or words not in ran.err or not clean:
                wrong.append((line, words, ran))
        assert wrong == []

    def fill(self) -> dict[str, str]:
        """Put one call of each kind into the store, and return the ids by kind."""
        filled = run_program("fill.py", folder=self.folder, env=self.env, name="fill").checked()
        ids: dict[str, str] = json.loads(filled.out)
        return ids

    def show(self, id_: str) -> dict[str, object]:
        """Return what `show` tells of a call."""
        told: dict[str, object] = json.loads(self.run("show", "shop:app", id_, "-o", "json").checked().out)
        return told

    @contextmanager
    def worker(self, *options: str) -> Iterator[Running]:
        with worker("shop:app", *options, folder=self.folder, env=self.env) as running:
            yield running

    def gate(self) -> Path:
        """Return where `hold` looks for its gate."""
        return self.folder / "gate"

    def wait_until_begun(self) -> None:
        """Wait until a call of `hold` or `sit` runs."""
        deadline = time.monotonic() + 20
        while not self.gate().with_suffix(".begun").exists():
            assert time.monotonic() < deadline, "the call did not begin"
            time.sleep(0.005)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, dict[str, str]]:
    """A shop with one call of each kind; for tests that change nothing."""
    shop = Shop(tmp_path_factory.mktemp("filled"))
    return shop, shop.fill()
