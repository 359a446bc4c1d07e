"""A shop whose app the commands use, in a folder of its own."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.processes import Ran, Running, environment, run_program, worker

PROGRAMS = Path(__file__).parent / "programs"


class Forks:
    """Runs commands in processes that do not have to import everything first."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / "forks.py")],
            env=environment({"NO_COLOR": "1", "COLUMNS": ""}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, folder: Path, env: Mapping[str, str], arguments: Sequence[str]) -> Ran:
        """Run `everloop` with these arguments."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([str(folder), dict(env), list(arguments)]), file=self._process.stdin, flush=True)
        code, out, err = json.loads(self._process.stdout.readline())
        return Ran(out, err, code)

    def close(self) -> None:
        """End the process that forks."""
        self._process.communicate(timeout=20)


class Shop:
    """A folder with an app, a store, and the commands run in it."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        self.folder = folder
        self.store = f"sqlite:///{folder}/shop.db"
        self.env = {"EVERLOOP_STORE": self.store, "NO_COLOR": "1", "COLUMNS": ""}
        self._forks = forks
        for name in ("shop.py", "fill.py"):
            shutil.copy(PROGRAMS / name, folder)

    def run(self, *arguments: str, **env: str) -> Ran:
        """Run `everloop` with these arguments."""
        return self._forks.run(self.folder, {**self.env, **env}, arguments)

    def run_each(self, lines: Iterable[Sequence[str]]) -> list[Ran]:
        """Run several command lines."""
        return [self.run(*line) for line in lines]

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
    def worker(self, *options: str, **env: str) -> Iterator[Running]:
        with worker("shop:app", *options, folder=self.folder, env={**self.env, **env}) as running:
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


def on_terminal(shop: Shop, *arguments: str, seen: Callable[[str], None] = lambda _: None) -> str:
    """Run `everloop` on a terminal of 60 columns, and return all that it wrote to it.

    Args:
        seen: Called with what it has written so far, whenever there is more.
    """
    controller, terminal = pty.openpty()
    env = environment({**shop.env, "COLUMNS": "60", "TERM": "xterm-256color", "TMPDIR": str(shop.folder)})
    del env["NO_COLOR"]
    command = [sys.executable, "-m", "everloop", *arguments]
    written = bytearray()
    with subprocess.Popen(
        command, cwd=shop.folder, env=env, stdin=terminal, stdout=terminal, stderr=terminal
    ) as running:
        os.close(terminal)
        while chunk := _read(controller):
            written += chunk
            seen(written.decode(errors="replace"))
        code = running.wait(30)
    os.close(controller)
    assert code == 0, written.decode()
    return written.decode()


def _read(controller: int) -> bytes:
    try:
        return os.read(controller, 65_536)
    except OSError:  # Linux says so when the last one that held the terminal has closed it
        return b""


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture
def shop(tmp_path: Path, forks: Forks) -> Shop:
    return Shop(tmp_path, forks)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> tuple[Shop, dict[str, str]]:
    """A shop with one call of each kind; for tests that change nothing."""
    shop = Shop(tmp_path_factory.mktemp("filled"), forks)
    return shop, shop.fill()
