"""What a store tells of itself to whoever looks after it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from everloop._core.records import Lane


class Backlog(NamedTuple):
    """The calls of one lane that are ready.

    Attributes:
        lane: Their lane.
        ready: How many there are.
        oldest: The due instant of the one that has been so for longest.
    """

    lane: Lane
    ready: int
    oldest: int


class Gauges(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker tells of itself with each renewal; a store keeps the last, and does not look into it.

    Attributes:
        memory: Bytes that its process holds.
        memory_limit: Bytes beyond which it is replaced, or None.
        lag: Microseconds that its loop took to answer, the longest since the last renewal.
        running: How many bodies run; those that wait for their children do not count.
        slots: How many may.
    """

    memory: int
    memory_limit: int | None = None
    lag: int
    running: int
    slots: int


class SessionLook(NamedTuple):
    """A session that is open, or whose time is over and that nobody has reaped yet.

    Attributes:
        leased: How many calls it holds.
        queues: Which it serves, by name.
        gauges: What it told of itself with its last renewal; None of clients, and of older releases.
    """

    number: int
    app: str
    kind: str
    host: str
    pid: int
    opened: int
    until: int
    leased: int
    queues: tuple[str, ...] = ()
    gauges: Gauges | None = None


class Setting(NamedTuple):
    """A setting of a database, on which it depends what its word is worth.

    Attributes:
        risk: What may happen with another value than `wanted`.
    """

    name: str
    value: str
    wanted: str
    risk: str


class Vitals(NamedTuple):
    """What a database tells of itself.

    Attributes:
        version: Its name and version.
        size: Bytes that Everloop's tables take there.
        ahead: Microseconds by which its clock is ahead of this machine's.
        settings: Those on which its word depends.
    """

    version: str
    size: int
    ahead: int
    settings: tuple[Setting, ...]
