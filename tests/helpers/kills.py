"""The real kills of a suite: each has struck a process that lived. What a fixture ends is none."""

from __future__ import annotations

from collections import Counter

PROCESS = "SIGKILL of a worker or a client"
SERVER = "SIGKILL of a database server"
STOPPED = "SIGSTOP of a worker for longer than its lease"

#: The beginning of the name under which a kind stands in the report of a suite.
REPORTED = "kills: "

_counted = Counter[str]()


def count(kind: str) -> None:
    """Note that a process was struck."""
    _counted[kind] += 1


def counted() -> Counter[str]:
    """Return the kills so far, by their kinds."""
    return _counted.copy()


def told() -> str:
    """Return them in one line."""
    return f"{_counted.total()} real kills: " + ", ".join(
        f"{times} x {kind}" for kind, times in sorted(_counted.items())
    )


def forget() -> None:
    """Begin to count anew."""
    _counted.clear()
