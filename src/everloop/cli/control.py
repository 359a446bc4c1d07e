"""What a supervisor and its workers say to each other, in lines of JSON over a socket.

The worker says how it is, each second: `ready`, or why it is not; and which calls it holds. The supervisor
says how far the end is, and which other worker has died: whoever hears it takes over what that one held. When
the supervisor is gone, the worker drains: nobody would start another in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable

import msgspec

#: What a worker says that would take calls.
READY = "ready"


class Report(msgspec.Struct, frozen=True):
    """What a worker says of itself.

    Attributes:
        how: `READY`, or why it takes no calls.
        session: The number of its session.
        holding: How many calls it holds.
        calls: Which, the first ones: function and id.
    """

    how: str
    session: int = 0
    holding: int = 0
    calls: tuple[str, ...] = ()

    @property
    def held(self) -> str:
        """Say which calls it held; nothing when there were none."""
        if not self.holding:
            return ""
        calls = f"{self.holding} call{'' if self.holding == 1 else 's'}"
        more = ", ..." if self.holding > len(self.calls) else ""
        return f", while it held {calls} ({', '.join(self.calls)}{more})"


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """The supervisor says how far the end is.

    Attributes:
        level: 1 drains, 2 releases at once.
        signal: Which signal it was.
    """

    level: int
    signal: str


class Died(msgspec.Struct, frozen=True, tag="died"):
    """The supervisor says which worker has died.

    Attributes:
        session: The number of its session.
        how: How its process ended.
    """

    session: int
    how: str


def line(message: Report | Stop | Died) -> bytes:
    """Return a message as it is sent."""
    return msgspec.json.encode(message) + b"\n"


def read_report(line: bytes) -> Report | None:
    """Return what a worker said; None for a line that is not whole, because its socket was full."""
    try:
        return msgspec.json.decode(line, type=Report)
    except msgspec.DecodeError:
        return None


class Control:
    """The worker's side.

    Args:
        fd: The socket.
        reach: Told how far the end is.
        died: Told which other worker has died, and how.
    """

    def __init__(
        self, fd: int, reach: Callable[[int, signal.Signals], None], died: Callable[[int, str], None]
    ) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)  # noqa: FBT003 - that is its name
        self._reach = reach
        self._died = died
        self._heard = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._hear)

    def _hear(self) -> None:
        # Until nothing is left: of a reset behind the last words uvloop tells once only.
        while (data := self._received()) is not None:
            if not data:
                self._loop.remove_reader(self._socket)
                self._reach(1, signal.SIGTERM)
                return
            *lines, self._heard = (self._heard + data).split(b"\n")
            for each in lines:
                order = msgspec.json.decode(each, type=Stop | Died)
                if isinstance(order, Stop):
                    self._reach(order.level, signal.Signals[order.signal])
                else:
                    self._died(order.session, order.how)

    def _received(self) -> bytes | None:
        """Return what has come, b"" at the end, and None when there is nothing yet."""
        try:
            return self._socket.recv(4_096)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def say(self, report: Report) -> None:
        """Say how this worker is."""
        # One that does not listen (it was stopped, or is gone) has to do without.
        with contextlib.suppress(OSError):
            self._socket.send(line(report))

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
