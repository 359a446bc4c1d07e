"""A database server of one's own, for tests, benchmarks and scripts: what the kinds have in common."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import SplitResult, urlsplit

from tests.helpers import kills
from tests.helpers.servers.binaries import Binaries
from tests.helpers.servers.place import ServerFailed, Template, User, environment, free_port, fresh

GUARD = Path(__file__).with_name("guard.py")
#: The administrator, who can be reached from this machine only, and holds nothing of worth.
ADMIN = "everloop_admin"
PASSWORD = "everloop-admin"
#: How long a server may take to answer: after a crash it recovers first.
START_S = 30.0
#: How long a server may take to end before it is killed.
STOP_S = 10.0
#: How often another port is tried, when somebody else was quicker.
PORT_TRIES = 5

Row = tuple[Any, ...]


class Server(ABC):
    """A server on a folder, a loopback port and a unix socket of its own.

    It ends with `close`, with the `with` block, with the process, and when the process is killed; its folder
    and its shared memory go with it. `stop` and `kill` end the server process only, and `start` takes it up
    again on the same folder and port.

    Args:
        fast: Spare the disk. Not for tests about durability: what was committed last may be lost with `kill`.
        settings: Settings of the server beside its defaults, by name.
    """

    #: What it is called in names of folders.
    kind: ClassVar[str]
    #: What ends the server soon and cleanly, and what does so when its tests are gone.
    stop_signal: ClassVar[signal.Signals]
    quit_signal: ClassVar[signal.Signals]
    scheme: ClassVar[str]

    def __init__(self, *, fast: bool = False, settings: Mapping[str, str | int] | None = None) -> None:
        self.fast = fast
        self.settings = dict(settings or {})
        self.host = "127.0.0.1"
        self.port = 0
        self.binaries = self._find()
        self.user = self._user()
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._guard: subprocess.Popen[str] | None = None
        self._folder: Path | None = None
        self._pid: int | None = None

    # ------------------------------------------------------------------------------- life

    def start(self) -> Self:
        """Start it and wait until it answers; does nothing when it runs.

        Raises:
            ServerFailed: It ended or did not answer; with the end of its log.
        """
        with self._lock:
            if self.running:
                return self
            if self._folder is None:
                self._settle()
            first = self.port == 0
            for left in reversed(range(PORT_TRIES if first else 1)):
                self.port = free_port() if first else self.port
                self._pid = self._ask("start", **self._launch())["pid"]
                try:
                    self._wait_until_it_answers()
                    break
                except ServerFailed as error:
                    if left and self._port_was_taken(str(error)):
                        continue
                    raise
        return self

    def stop(self, seconds: float = STOP_S) -> None:
        """End the server cleanly; kill it when that takes too long. The folder stays until `close`."""
        with self._lock:
            if self._guard is not None:
                self._ask("stop", signal=int(self.stop_signal), seconds=seconds)
                self._pid = None

    def kill(self) -> None:
        """End the server and its children at once with SIGKILL, as a crash would."""
        with self._lock:
            if self._guard is not None:
                if self.running:
                    kills.count(kills.SERVER)
                self._ask("kill")
                self._pid = None

    def close(self) -> None:
        """End the server and remove all that it leaves."""
        # A fork has a copy of this object, and of what is registered with atexit, but no server.
        if self._owner != os.getpid():
            return
        with self._lock:
            if self._guard is None:
                return
            atexit.unregister(self.close)
            self.stop()
            assert self._guard.stdin is not None and self._guard.stdout is not None
            self._guard.stdin.close()
            code = self._guard.wait()
            self._guard.stdout.close()
            self._guard, self._folder, self.port = None, None, 0
            if code:
                raise ServerFailed(
                    f"the guard of {self.kind} ended with {code}; see what it printed on stderr"
                )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._guard is not None and bool(self._ask("look")["running"])

    @property
    def pid(self) -> int:
        """The id of its main process."""
        if self._pid is None:
            raise ServerFailed(f"{self.kind} has no process: it was not started, or was ended; call start()")
        return self._pid

    @property
    def guard(self) -> int:
        """The id of the process that ends it and removes what it leaves."""
        if self._guard is None:
            raise ServerFailed(f"{self.kind} has no guard: it was not started, or was closed; call start()")
        return self._guard.pid

    @property
    def version(self) -> tuple[int, ...]:
        """Its version, as numbers: `server.version >= (17,)`."""
        return self.binaries.version

    @property
    def folder(self) -> Path:
        """Its folder: `data`, `log` and the socket."""
        if self._folder is None:
            raise ServerFailed(f"{self.kind} has no folder: it was not started, or was closed; call start()")
        return self._folder

    @property
    def log(self) -> str:
        """What the server has written into its log."""
        path = self.folder / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    # -------------------------------------------------------------------------- databases

    def database(self) -> str:
        """Make a fresh database, with a user who may do everything in it and nothing else; return its URL."""
        name = f"everloop{uuid.uuid4().hex[:12]}"
        password = uuid.uuid4().hex
        self._create(name, password)
        return f"{self.scheme}://{name}:{password}@{self.host}:{self.port}/{name}"

    def drop(self, url: str) -> None:
        """Drop a database that `database` made, and its user; who is connected is thrown out."""
        self._drop(address(url).path.removeprefix("/"))

    def execute(self, sql: str, *, database: str | None = None) -> list[Row]:
        """Execute one statement as the administrator, committed at once; return its rows.

        Args:
            sql: The statement, with its values in it.
            database: The name of a database or its URL; else that of the server itself.
        """
        name = address(database).path.removeprefix("/") if database and "://" in database else database
        return self._execute([sql], name)

    # ---------------------------------------------------------------------------- plumbing

    def _settle(self) -> None:
        """Make the folder, with data in it, and the guard that will remove it."""
        self._folder = fresh(self.kind, self.user)
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", GUARD, self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        atexit.register(self.close)
        self._fill()

    def _fill(self) -> None:
        """Put into the folder what it begins with."""
        assert self._folder is not None
        self._template().copy(self._folder / "data")

    def _launch(self) -> dict[str, Any]:
        return {
            "command": [str(self.binaries.server), *self._arguments()],
            "env": environment(self.folder),
            "log": str(self.folder / "log"),
            "uid": self.user.uid,
            "gid": self.user.gid,
            "quit": int(self.quit_signal),
        }

    def _ask(self, what: str, **more: Any) -> dict[str, Any]:
        """Ask the guard, and return what it answers."""
        with self._lock:
            guard = self._guard
            assert guard is not None and guard.stdin is not None and guard.stdout is not None
            try:
                guard.stdin.write(json.dumps({"do": what, **more}) + "\n")
                guard.stdin.flush()
                line = guard.stdout.readline()
            except BrokenPipeError:
                line = ""
            answer: dict[str, Any] = json.loads(line or '{"error": "its guard process has ended"}')
        if "error" in answer:
            raise ServerFailed(f"{self.kind} cannot {what}: {answer['error']}")
        return answer

    def _wait_until_it_answers(self) -> None:
        refusals: tuple[type[Exception], ...] = (OSError, *self._refusals())
        deadline = time.monotonic() + START_S
        while True:
            answer = self._ask("look")
            if not answer["running"]:
                raise ServerFailed(f"{self.kind} ended with {answer['code']}{self._tail()}")
            try:
                # By hand first: a driver that is refused may leave its socket to the garbage collector.
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(self.socket))
                self._execute(["select 1"], None)
                return
            except refusals as error:
                reason = str(error)
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.kind} gave no answer in {START_S:.0f} s: {reason}{self._tail()}")
            time.sleep(0.01)

    def _tail(self) -> str:
        return "; the end of its log:\n" + "\n".join(self.log.splitlines()[-30:])

    @staticmethod
    def _port_was_taken(text: str) -> bool:
        return "Address already in use" in text

    # ------------------------------------------------------------------ what a kind knows

    @property
    @abstractmethod
    def socket(self) -> Path:
        """The path of its unix socket."""

    @abstractmethod
    def _find(self) -> Binaries: ...

    @abstractmethod
    def _user(self) -> User: ...

    @abstractmethod
    def _template(self) -> Template: ...

    @abstractmethod
    def _arguments(self) -> list[str]: ...

    @abstractmethod
    def _create(self, name: str, password: str) -> None: ...

    @abstractmethod
    def _drop(self, name: str) -> None: ...

    @abstractmethod
    def _refusals(self) -> tuple[type[Exception], ...]:
        """Return what the driver raises while the server does not answer yet."""

    @abstractmethod
    def _execute(self, statements: Sequence[str], database: str | None) -> list[Row]:
        """Execute the statements on one connection, each committed at once; return the rows of the last.

        By the unix socket, which is in our folder: on the port of a server that failed, another may answer.
        """


def address(url: str) -> SplitResult:
    """Take a URL apart: `.username`, `.password`, `.hostname`, `.port`, and the database as `.path`."""
    return urlsplit(url)
