"""The process between a test run and its server: nothing outlives the run, however that ends.

Runs by itself (`python -I -S guard.py FOLDER`). Its parent writes a request in each line of stdin and reads
the answer from stdout. When stdin ends, or the parent is gone, it ends the server and all that the server has
started, and removes the folder and the shared memory.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
IPC_RMID = 0
LINUX = sys.platform == "linux"
#: What a server that is told to end may need for that after its tests have gone.
LAST_S = 5.0

_libc = ctypes.CDLL(None, use_errno=True)


class Guard:
    """The server process, its children and what they would leave behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.child = 0
        self.code: int | None = None
        self.segments: set[int] = set()
        self.files: set[str] = set()
        self.quit = signal.SIGKILL
        if LINUX:
            # What the server leaves behind becomes ours, so that we can wait for its end.
            _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.running():
            return {"error": f"the server is running already, as process {self.child}"}
        self.quit = signal.Signals(request["quit"])
        self.code = None
        self.child = os.fork()
        if self.child == 0:
            try:
                self._become(request)
            finally:
                os._exit(127)
        return {"pid": self.child}

    def _become(self, request: dict[str, Any]) -> None:
        """Be the server, as another user where that is asked for."""
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if request["uid"] is not None:
            os.setgroups([])
            os.setgid(request["gid"])
            os.setuid(request["uid"])
        if LINUX:
            # After setuid, which clears it.
            _libc.prctl(PR_SET_PDEATHSIG, int(self.quit), 0, 0, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)  # what is ignored stays so in the server
        os.chdir(self.folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            os.execve(request["command"][0], request["command"], request["env"])
        except OSError as error:
            os.write(2, f"cannot run {request['command'][0]}: {error}\n".encode())

    def running(self) -> bool:
        """Reap who has ended, and tell whether the server is still there."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == self.child:
                self.code = os.waitstatus_to_exitcode(status)
        return bool(self.child) and self.code is None

    def stop(self, number: int, seconds: float) -> dict[str, Any]:
        """End it with a signal, and kill it when that takes too long."""
        self._remember()
        if self.running():
            os.kill(self.child, number)
        deadline = time.monotonic() + seconds
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.005)
        killed = self.running()
        self.kill()
        return {"code": self.code, "killed": killed}

    def kill(self) -> dict[str, Any]:
        """End the server and its children as a crash would, and wait until none is left."""
        if self.running():
            # Held still first: it starts no further children while those that it has are listed.
            os.kill(self.child, signal.SIGSTOP)
        self._remember()
        while True:
            for pid in self._family():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if not self.running() and not self._family():
                return {"code": self.code}
            time.sleep(0.002)

    def _family(self) -> list[int]:
        """Return the server and all that it has started, the oldest first."""
        if not LINUX:
            return [self.child] if self.running() else []
        found: list[int] = []
        waiting = [os.getpid()]
        while waiting:
            try:
                text = Path(f"/proc/{waiting[0]}/task/{waiting[0]}/children").read_text(encoding="ascii")
            except (FileNotFoundError, ProcessLookupError):
                text = ""
            del waiting[0]
            children = [int(number) for number in text.split()]
            found += children
            waiting += children
        return found

    def _remember(self) -> None:
        """Note the server's shared memory: a killed one leaves it to its next start, which may never come."""
        if not LINUX or not self.running():
            return
        for pid in self._family():
            try:
                maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
            except (FileNotFoundError, ProcessLookupError):
                continue
            self.segments |= {int(number) for number in re.findall(r" (\d+) +/SYSV", maps)}
            self.files |= set(re.findall(r"/dev/shm/PostgreSQL\.\d+", maps))

    def leave(self) -> None:
        """End everything and remove what is left."""
        self.stop(self.quit, LAST_S)
        for segment in self.segments:
            _libc.shmctl(
                segment, IPC_RMID, None
            )  # gone already, as after every clean end: so much the better
        for file in self.files:
            Path(file).unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def serve(self) -> None:
        """Answer requests until there is nobody to ask."""
        parent = os.getppid()
        while True:
            readable, _, _ = select.select([sys.stdin], [], [], 1.0)
            # A fork of the parent may hold the other end of the pipe: an open one is no proof that it lives.
            if os.getppid() != parent:
                return
            if not readable:
                continue
            line = sys.stdin.readline()
            if not line:
                return
            print(json.dumps(self._answer(json.loads(line))), flush=True)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["do"]:
            case "start":
                return self.start(request)
            case "stop":
                return self.stop(request["signal"], request["seconds"])
            case "kill":
                return self.kill()
            case _:
                return {"running": self.running(), "code": self.code}


if __name__ == "__main__":
    # The parent's terminal is not ours: Ctrl-C reaches us through it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    guard = Guard(Path(sys.argv[1]))
    try:
        guard.serve()
    except BrokenPipeError:
        pass  # the parent went while we answered
    finally:
        guard.leave()
