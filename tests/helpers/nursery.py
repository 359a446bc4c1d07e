"""Workers that start at once: real processes, forked from one that has imported everything.

A process of Python's own takes most of a second of the processor's time to import what a worker needs.
Whoever kills thousands of them forks each from a *nursery*: a process that has imported, and done nothing
else.

`python -m tests.helpers.nursery MODULE ...` is that process: it answers each line of stdin, a request in
JSON, with one. When stdin ends, it kills those that are left.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from tests.helpers import kills
from tests.helpers.processes import environment

#: What the command `everloop worker` imports as it goes.
IMPORTED = (
    "everloop.cli.group",
    "everloop.cli.worker",
    "everloop.engine.services.pruner",
    "everloop.store.sql.mysql",
    "everloop.store.sql.postgresql",
    "everloop.store.sql.store",
    "psycopg",
    "pymysql",
    "uvloop",
)


class Child:
    """A process that was forked by a nursery."""

    def __init__(self, nursery: Nursery, pid: int, err_path: Path) -> None:
        self.nursery = nursery
        self.pid = pid
        self.err_path = err_path
        self.code: int | None = None

    @property
    def err(self) -> str:
        """What it has printed."""
        return self.err_path.read_text(encoding="utf-8")

    @property
    def is_ready(self) -> bool:
        """Whether it has said that it is."""
        return any(said in self.err for said in ("worker ready", "client ready"))

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.alive():  # else its id may be another process's by now
            self.nursery.ask("signal", pid=self.pid, number=int(number))

    def stop(self) -> bool:
        """Stop it with SIGSTOP, and wait until it stands still; tell whether it does: it may have ended."""
        return self.alive() and bool(self.nursery.ask("stop", pid=self.pid)["stopped"])

    def kill(self) -> bool:
        """End it at once; tell whether it was this that has ended it."""
        if not self.alive():
            return False
        self.signal(signal.SIGKILL)
        self.code = self.nursery.ask("wait", pid=self.pid)["code"]
        struck = self.code == -signal.SIGKILL
        if struck:
            kills.count(kills.PROCESS)
        return struck

    def alive(self) -> bool:
        """Whether it has not ended."""
        if self.code is None:
            self.code = self.nursery.ask("look", pid=self.pid)["code"]
        return self.code is None

    def ended(self, seconds: float) -> int:
        """Wait for its end; return its exit code, or less than zero for a signal."""
        deadline = time.monotonic() + seconds
        while self.alive():
            assert time.monotonic() < deadline, f"{self.pid} has not ended after {seconds} s:\n{self.err}"
            time.sleep(0.005)
        assert self.code is not None
        return self.code


class Nursery:
    """The process that forks them, for as long as the `with` block.

    Args:
        modules: What it imports: the apps, or the programs, of its children.
        folder: Where they run, and where their output is kept.
        env: The change of the environment.
    """

    def __init__(self, *modules: str, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self._number = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.nursery", *modules],
            cwd=folder,
            env=environment(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def worker(self, target: str, *options: str) -> Child:
        """Start `everloop worker TARGET`."""
        return self._fork("everloop.cli", ["worker", target, *options])

    def program(self, module: str, *arguments: str) -> Child:
        """Start what `main` of a module does with these arguments."""
        return self._fork(module, arguments)

    def _fork(self, module: str, arguments: Sequence[str]) -> Child:
        self._number += 1
        path = self.folder / f"child{self._number}.err"
        path.touch()
        pid = self.ask("fork", module=module, arguments=arguments, output=str(path))["pid"]
        return Child(self, pid, path)

    def ask(self, what: str, **more: Any) -> dict[str, Any]:
        """Ask, and return the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the nursery has ended with {self._process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer


# -- in the nursery's process -------------------------------------------------------------------------------


class Forker:
    """What the nursery's process does for who asks."""

    def __init__(self) -> None:
        self._living = set[int]()
        self._codes: dict[int, int] = {}

    def serve(self) -> dict[str, Any] | None:
        """Answer until nobody asks any more; in a forked child, return what that is to do."""
        for line in sys.stdin:
            asked = json.loads(line)
            if asked["do"] == "fork":
                pid = os.fork()
                if pid == 0:
                    return dict(asked)
                self._living.add(pid)
                answer: dict[str, Any] = {"pid": pid}
            elif asked["do"] == "signal":
                os.kill(asked["pid"], asked["number"])
                answer = {}
            elif asked["do"] == "stop":
                answer = {"stopped": self._stop(asked["pid"])}
            else:
                answer = {"code": self._code(asked["pid"], wait=asked["do"] == "wait")}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        self._end()
        return None

    def _stop(self, pid: int) -> bool:
        os.kill(pid, signal.SIGSTOP)
        _, status = os.waitpid(pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return True
        self._gone(pid, status)
        return False

    def _code(self, pid: int, *, wait: bool) -> int | None:
        if pid in self._living:
            found, status = os.waitpid(pid, 0 if wait else os.WNOHANG)
            if found:
                self._gone(pid, status)
        return self._codes.get(pid)

    def _gone(self, pid: int, status: int) -> None:
        self._living.discard(pid)
        self._codes[pid] = os.waitstatus_to_exitcode(status)

    def _end(self) -> None:
        for pid in list(self._living):
            os.kill(pid, signal.SIGKILL)
            self._code(pid, wait=True)


def become(asked: Mapping[str, Any]) -> None:
    """Be the child: nothing of the nursery's is left open."""
    null = os.open(os.devnull, os.O_RDONLY)
    output = os.open(asked["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for descriptor, place in ((null, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, place)
    os.close(null)
    os.close(output)


def main(modules: Sequence[str]) -> int:
    """Import, then fork whatever is asked for."""
    for module in (*IMPORTED, *modules):
        import_module(module)
    asked = Forker().serve()
    if asked is None:
        return 0
    become(asked)
    code: int = import_module(asked["module"]).main(asked["arguments"])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
