"""What a worker and a process of its own say to each other, and in which form.

Each message is its length in four bytes and msgpack. Arguments and results are in it as the bytes that are
stored: the worker looks into neither.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, Literal, NamedTuple

import msgspec

from everloop._core.records import Leased

_LENGTH: Final = struct.Struct("!I")


class Place(NamedTuple):
    """A module: its name, and the file of one that is known by that only, because a program was started."""

    name: str
    file: str = ""


class Home(NamedTuple):
    """Where a function is found again by importing: where its app is made, and where it is declared."""

    app: str
    fn: str
    modules: tuple[Place, ...]


class Setup(msgspec.Struct, tag="setup"):
    """How a process begins.

    Attributes:
        path: `sys.path` of the worker.
        level: The level of the root logger, when the worker has set one up.
        form: The format of its first handler that writes to a stream.
    """

    path: list[str]
    argv: list[str]
    level: int | None = None
    form: str | None = None


class Run(msgspec.Struct, tag="run"):
    """Run this call."""

    home: Home
    leased: Leased


class Stop(msgspec.Struct, tag="stop"):
    """Ask the body that runs to stop."""

    reason: Literal["cancelled", "timeout", "shutdown", "lost"]
    message: str


class End(msgspec.Struct, tag="end"):
    """Close what is open, and end."""


class Report(msgspec.Struct, tag="report"):
    """The body says how far it is."""

    done: float
    total: float | None
    note: str


class Beat(msgspec.Struct, tag="beat"):
    """The body gives a sign of life."""


class Value(msgspec.Struct, tag="value"):
    """The body returned; `settled` when its own transaction has committed the outcome."""

    value: bytes
    settled: bool


class Raised(msgspec.Struct, tag="raised"):
    """The body raised something of which a record tells; `names` are its class and the bases of that."""

    record: bytes
    names: list[str]


class Refused(msgspec.Struct, tag="refused"):
    """Everloop refused something: the name of one of its own errors, and the text."""

    kind: str
    text: str


class PutOff(msgspec.Struct, tag="put_off"):
    """The body asked to be run again later (`RetryAfter`); microseconds."""

    delay: int


class Cancelled(msgspec.Struct, tag="cancelled"):
    """The body ended with `CancelledError`."""

    text: str


ToChild = Setup | Run | Stop | End
Answer = Value | Raised | Refused | PutOff | Cancelled
FromChild = Report | Beat | Answer

_encoder = msgspec.msgpack.Encoder()
read_order = msgspec.msgpack.Decoder(ToChild).decode
read_news = msgspec.msgpack.Decoder(FromChild).decode


def frame(message: ToChild | FromChild) -> bytes:
    """Return the bytes that carry a message."""
    data = _encoder.encode(message)
    return _LENGTH.pack(len(data)) + data


def length_of(head: bytes) -> int:
    """Return how many bytes follow the first four."""
    (length,) = _LENGTH.unpack(head)
    return int(length)


HEAD: Final = _LENGTH.size


def receive(sock: socket.socket) -> ToChild | None:
    """Wait for a message; None at the end of all messages."""
    head = _exactly(sock, HEAD)
    if head is None:
        return None
    data = _exactly(sock, length_of(head))
    return None if data is None else read_order(data)


def _exactly(sock: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        try:
            chunk = sock.recv(count - len(data))
        except OSError:  # reset: who was there has died
            return None
        if not chunk:
            return None
        data += chunk
    return bytes(data)
