"""What is kept of a call's runs: how each lease ended, in a bounded number of places.

Each lease ends exactly once: its body ended (an attempt), its worker died (a crash), or it was given back
(a release: a drain, `RetryAfter`). The end that makes the call final is its outcome, and is written nowhere
else. Of the others, the first and the last ones are kept: each goes to a place (`slot`) that follows from
the numbers in the call's row, and replaces what stood there. So nothing is counted, and nothing trimmed.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

#: Attempts and crashes that are kept: the first ones, and the last ones. Releases: the last ones.
FIRST, LAST, RELEASES = 5, 15, 3

RunKind = Literal["succeeded", "failed", "cancelled", "crashed", "released"]


class RunRecord(NamedTuple):
    """One run, as a store tells of it: oldest first, by the fence of its lease.

    Attributes:
        fence: Of its lease.
        number: Which attempt it was, the first is 1; a run that crashed or was released is followed by
            another one of this number.
        kind: How it ended.
        session: Whose lease it was.
        error: The record of the exception, or of the worker's last words.
        host: The session's machine, and `pid` its process; None when that is no longer known.
    """

    fence: int
    number: int
    kind: RunKind
    session: int | None
    started: int | None
    ended: int
    error: bytes | None
    host: str | None
    pid: int | None


def slot(kind: RunKind, fence: int, attempt: int, crashes: int) -> int:
    """Return the place of a run that ended the lease with this fence.

    Args:
        kind: How it ended.
        fence: Of its lease: each earlier one has made it grow by two, when it began and when it ended.
        attempt: The attempts before it.
        crashes: The crashes before it.
    """
    if kind == "released":
        earlier = fence // 2 - attempt - crashes
        return -1 - earlier % RELEASES
    earlier = attempt + crashes
    return earlier if earlier < FIRST else FIRST + (earlier - FIRST) % LAST


def left_out(runs: list[RunRecord], attempt: int, crashes: int) -> int:
    """Return how many attempts and crashes of a call are not among its runs."""
    return attempt + crashes - sum(run.kind != "released" for run in runs)
