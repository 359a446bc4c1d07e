"""Worker and client processes: started, asked, looked at, and ended by their ids."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.place import ROOT

#: No single request to a client takes longer than this, in seconds.
LIMIT = 600.0
START = 30.0
END = 15.0


class ProcessError(Exception):
    """A process did not do what it should; with what it printed."""


class Running:
    """A process of the bench.

    Its store is the SQLite file `store`, or what `url` says; its log lies beside `store`.
    """

    def __init__(
        self, arguments: list[str], store: Path, url: str, name: str, *, ends_with_input: bool = False
    ) -> None:
        self.name = name
        self._ends_with_input = ends_with_input
        self.log = store.with_name(f"{store.name}.{name}.log")
        environment = os.environ | {
            "EVERLOOP_STORE": url or f"sqlite:///{store}",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "src"))),
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.pid = self._process.pid

    # -- talking ------------------------------------------------------------------------------------------

    def read(self, timeout: float) -> str:
        """Return the next line that it prints.

        Raises:
            ProcessError: It ended, or printed none in time.
        """
        output = self._process.stdout
        assert output is not None  # it is a pipe
        ready, _, _ = select.select([output], [], [], timeout)
        line = output.readline().decode() if ready else ""
        if not line:
            state = "ended" if ready else f"said nothing for {timeout:.0f} s"
            raise ProcessError(f"the {self.name} {state}:\n{self.log.read_text(encoding='utf-8')[-3000:]}")
        return line

    def ask(self, request: str, **arguments: Any) -> Any:
        """Send a request as one line of JSON and return the answer."""
        stdin = self._process.stdin
        assert stdin is not None  # it is a pipe
        stdin.write(json.dumps([request, arguments]).encode() + b"\n")
        stdin.flush()
        return json.loads(self.read(LIMIT))

    def wait_for(self, text: str, timeout: float = START) -> None:
        """Wait until its log contains `text`."""
        deadline = time.monotonic() + timeout
        while text not in self.log.read_text(encoding="utf-8"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ProcessError(
                    f"the {self.name} did not say {text!r}:\n{self.log.read_text(encoding='utf-8')}"
                )
            time.sleep(0.01)

    def end(self) -> None:
        """End it: asked first, killed if it does not listen."""
        if not self._ends_with_input and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    # -- looking ------------------------------------------------------------------------------------------

    @property
    def cpu(self) -> float:
        """Seconds of processor time that all its threads have used."""
        return sum(float(self._task(task, "schedstat").split()[0]) for task in self._tasks()) / 1e9

    @property
    def switches(self) -> int:
        """How often its threads went to sleep, so how often they were woken up."""
        return sum(
            int(_field(self._task(task, "status"), "voluntary_ctxt_switches")) for task in self._tasks()
        )

    @property
    def megabytes(self) -> float:
        """Memory that is resident now."""
        return (
            int(_field(Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8"), "VmRSS").split()[0])
            / 1024
        )

    def _tasks(self) -> list[str]:
        return [task.name for task in Path(f"/proc/{self.pid}/task").iterdir()]

    def _task(self, task: str, name: str) -> str:
        return Path(f"/proc/{self.pid}/task/{task}/{name}").read_text(encoding="utf-8")


def _field(text: str, name: str) -> str:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    raise ProcessError(f"/proc says nothing of {name}")


@contextmanager
def worker(store: Path, *, concurrency: int, url: str = "") -> Iterator[Running]:
    """A worker process, ready."""
    process = start_worker(store, concurrency=concurrency, url=url)
    try:
        process.wait_for("worker ready")
        yield process
    finally:
        process.end()


def start_worker(store: Path, *, concurrency: int, url: str = "") -> Running:
    """Start a worker process and do not wait for it."""
    return Running(
        ["everloop", "worker", "bench.tasks:app", f"--concurrency={concurrency}", "--grace=0"],
        store,
        url,
        "worker",
    )


@contextmanager
def client(store: Path, *, embedded: int = 0, url: str = "") -> Iterator[Running]:
    """A client process that answers to `ask`; with `embedded`, it serves with so many slots itself."""
    name = "embedded" if embedded else "client"
    process = Running(["bench.client", str(embedded)], store, url, name, ends_with_input=True)
    try:
        process.read(START)
        yield process
    finally:
        process.end()
