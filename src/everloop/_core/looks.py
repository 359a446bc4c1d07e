"""What a store tells of itself to whoever looks after it."""

from __future__ import annotations

from typing import NamedTuple

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


class SessionLook(NamedTuple):
    """A session that is open, or whose time is over and that nobody has reaped yet.

    Attributes:
        leased: How many calls it holds.
    """

    number: int
    app: str
    kind: str
    host: str
    pid: int
    opened: int
    until: int
    leased: int


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
