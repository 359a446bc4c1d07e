"""The doorbell: a datagram beside the SQLite file that says "look".

Each listening session binds a socket named after it in a folder beside the file; whoever commits
something for a session sends it an empty datagram. A bell is a hint: it may be lost, and nobody waits
for it. Polling `data_version` instead costs 5 % of a core at one millisecond.

A bell also tells the living from the dead: the kernel closes a dead process's sockets, whatever killed it,
and a bell that is there but refuses is one of them. A stopped process keeps its bell.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from everloop._core import forks

_LONGEST = 90  # bytes of a folder's path: a socket's path may have 107
_WORKER = "w"
_TICK = 100_000_000  # nanoseconds: more than any file system's time stamps are coarse


class Doorbell:
    """Rings sessions, and listens for one."""

    def __init__(self, path: Path) -> None:
        folder = path.with_name(f"{path.name}.bells")
        if len(os.fsencode(folder)) > _LONGEST:
            digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
            folder = Path(tempfile.gettempdir()) / f"everloop-{os.getuid()}-{digest}"
        self.folder = folder
        self._socket: socket.socket | None = None
        self._own: set[str] = set()
        self._listed: list[str] = []
        self._listed_at = 0

    def listen(self, session: int, wake: Callable[[], None], *, worker: bool) -> Callable[[], None]:
        """Call `wake` on the running loop at each ring; return what stops it."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        loop = asyncio.get_running_loop()
        name = f"{_WORKER}{session}" if worker else str(session)
        path = self.folder / name
        for former in (str(session), f"{_WORKER}{session}"):
            # Of a store that was deleted without its bells: it would be taken for this session's, and dead.
            (self.folder / former).unlink(missing_ok=True)
        bell = _datagrams()
        bell.bind(str(path))
        forks.close_in_children(bell)  # a bell that answers says that the process lives
        self._own.add(name)

        def ringing() -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    bell.recv(16)
            wake()

        loop.add_reader(bell.fileno(), ringing)

        def stop() -> None:
            self._own.discard(name)
            if not loop.is_closed():
                loop.remove_reader(bell.fileno())
            # In this order: a bell that is there and refuses is a dead process's.
            path.unlink(missing_ok=True)
            bell.close()

        return stop

    def ring(self, sessions: Iterable[int], *, workers: bool) -> None:
        """Ring these sessions, and every worker when `workers`."""
        names = set(map(str, sessions))
        for name in self._there():
            is_worker = name.startswith(_WORKER)
            if name not in self._own and (name.lstrip(_WORKER) in names or (workers and is_worker)):
                self._ring(name)

    def _there(self) -> list[str]:
        """List the bells; the folder is only read again when it has changed."""
        try:
            changed = os.stat(self.folder).st_mtime_ns  # noqa: PTH116 - hot: a Path costs more than the call
            if changed != self._listed_at:
                self._listed = os.listdir(self.folder)  # noqa: PTH208 - hot
                # A change in the same tick as this look would not show: trust only an older one.
                self._listed_at = changed if time.time_ns() - changed > _TICK else 0
        except FileNotFoundError:
            return []
        return self._listed

    def _ring(self, name: str) -> None:
        if self._socket is None:
            self._socket = _datagrams()
        path = self.folder / name
        try:
            self._socket.sendto(b"", str(path))
        except BlockingIOError:
            return  # it is full of rings already
        except OSError:
            return  # its process has ended, one way or the other

    def gone(self) -> dict[int, Path]:
        """Return the sessions whose process has died, each with its bell."""
        dead: dict[int, Path] = {}
        for name in self._there():
            number = name.lstrip(_WORKER)
            if name not in self._own and number.isdecimal() and self._refuses(self.folder / name):
                dead[int(number)] = self.folder / name
        return dead

    def _refuses(self, path: Path) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                return True
            except OSError:
                return False
        return False

    def close(self) -> None:
        """Close the ringing socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _datagrams() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.settimeout(0)
    return made
