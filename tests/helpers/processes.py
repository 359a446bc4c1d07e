"""Real processes for tests: programs that run to their end, and workers that serve until told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import kills

#: No process of a test runs longer than this.
LIMIT_S = 50.0
#: How long a process may take to say that it is ready.
START_S = 20.0


@dataclass(frozen=True)
class Ran:
    """What a program printed, and how it ended."""

    out: str
    err: str
    code: int

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def checked(self) -> Ran:
        """Return this if the program ended well.

        Raises:
            AssertionError: It did not; with what it printed.
        """
        assert self.code == 0, f"ended with {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"
        return self


class Running:
    """A process that a test has started, and its output so far."""

    def __init__(self, command: list[str], folder: Path, env: Mapping[str, str], name: str) -> None:
        self.out_path = folder / f"{name}.out"
        self.err_path = folder / f"{name}.err"
        # Appending: what several processes print into one file stands there in the order of time.
        with self.out_path.open("ab") as out, self.err_path.open("ab") as err:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment(env), stdout=out, stderr=err, stdin=subprocess.DEVNULL
            )

    @property
    def out(self) -> str:
        return self.out_path.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self.err_path.read_text(encoding="utf-8")

    def until(self, text: str, seconds: float = START_S) -> None:
        """Wait until the process has printed `text`, on either of its outputs."""
        deadline = time.monotonic() + seconds
        while text not in self.out and text not in self.err:
            code = self.process.poll()
            assert code is None, f"ended with {code} before it printed {text!r}\n{self.out}\n{self.err}"
            assert time.monotonic() < deadline, f"no {text!r} after {seconds} s\n{self.out}\n{self.err}"
            time.sleep(0.005)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, by its own id."""
        self.process.send_signal(number)

    def ended(self, seconds: float = LIMIT_S) -> Ran:
        """Wait for the end."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.discard()
            raise AssertionError(
                f"no end after {seconds} s\n--- stdout\n{self.out}\n--- stderr\n{self.err}"
            ) from None
        return Ran(self.out, self.err, code)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process.poll() is None:
            self.process.kill()
            if self.process.wait() == -signal.SIGKILL:
                kills.count(kills.PROCESS)

    def discard(self) -> None:
        """End it because the test ends: nobody looks at what becomes of its calls."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def environment(changes: Mapping[str, str] = {}) -> dict[str, str]:
    """Return this process's environment with changes; output comes at once."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", **changes}


def importing_from(folder: Path) -> dict[str, str]:
    """Return the change of the environment by which modules of this folder are found, too."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(folder)]))}


@contextmanager
def started(
    *command: str | Path,
    folder: Path,
    env: Mapping[str, str] = {},
    name: str = "program",
) -> Iterator[Running]:
    """Start a Python program (or `-m module`, `-c code`) and end it with the block, whatever happens."""
    running = Running([sys.executable, *map(str, command)], folder, env, name)
    try:
        yield running
    finally:
        running.discard()


def run_program(
    *command: str | Path,
    folder: Path,
    env: Mapping[str, str] = {},
    name: str = "program",
) -> Ran:
    """Run a Python program to its end."""
    with started(*command, folder=folder, env=env, name=name) as running:
        return running.ended()


@contextmanager
def worker(
    target: str,
    *options: str,
    folder: Path,
    env: Mapping[str, str] = {},
    name: str = "worker",
) -> Iterator[Running]:
    """Run `everloop worker module:app` until the block ends, then drain it with SIGTERM.

    `module` is imported from `folder`, or from where PYTHONPATH says.
    """
    with started("-m", "everloop", "worker", target, *options, folder=folder, env=env, name=name) as running:
        running.until("worker ready")
        yield running
        if running.process.poll() is None:
            running.signal(signal.SIGTERM)
            running.ended(20.0).checked()


def command(*arguments: str, folder: Path, env: Mapping[str, str] = {}, name: str = "command") -> Ran:
    """Run the command `everloop` with these arguments."""
    return run_program("-m", "everloop", *arguments, folder=folder, env=env, name=name)
