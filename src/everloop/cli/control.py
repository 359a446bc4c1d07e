"""What a supervisor and its workers say to each other, in lines over a socket.

The worker says how it is: `ready`, or why it is not, each second. The supervisor says how far the end is: `1
SIGTERM`. When the supervisor is gone, the worker drains: nobody would start another in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable

#: What a worker says that would take calls.
READY = "ready"


class Control:
    """The worker's side."""

    def __init__(self, fd: int, reach: Callable[[int, signal.Signals], None]) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)  # noqa: FBT003 - that is its name
        self._reach = reach
        self._heard = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._hear)

    def _hear(self) -> None:
        try:
            data = self._socket.recv(4_096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._socket)
            self._reach(1, signal.SIGTERM)
            return
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            level, name = line.decode().split()
            self._reach(int(level), signal.Signals[name])

    def say(self, how: str) -> None:
        """Say how this worker is."""
        # One that does not listen (it was stopped, or is gone) has to do without.
        with contextlib.suppress(OSError):
            self._socket.send(f"{how}\n".replace("\n", " ").rstrip().encode() + b"\n")

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
