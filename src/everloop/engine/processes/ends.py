"""How a body in another process ended, where that is no value: raised in the worker in its place."""

from __future__ import annotations

import signal

from everloop._core.errors import EverloopError

#: The exit code of a worker that has ended itself, for its loop did not answer.
STALLED = 70


class RaisedElsewhere(Exception):
    """A body raised something in its process.

    Attributes:
        record: What tells of it, as it is stored.
        names: Its class and the bases of that, by name.
    """

    def __init__(self, record: bytes, names: list[str]) -> None:
        super().__init__("a body raised something in its process")
        self.record = record
        self.names = frozenset(names)


class ProcessDied(EverloopError):
    """The process died with the body that ran in it."""


def last_words(code: int) -> str:
    """Say how a process ended: by which signal, or with which exit code."""
    if code >= 0:
        stalled = " (its event loop was blocked for longer than `stall_limit`)" if code == STALLED else ""
        return f"it ended itself with exit code {code}{stalled}"
    try:
        which = signal.Signals(-code)
    except ValueError:
        return f"it was killed by signal {-code}"
    why = {signal.SIGKILL: " (as the kernel does when memory is short)", signal.SIGSEGV: " (in native code)"}
    return f"it was killed by {which.name}{why.get(which, '')}"
