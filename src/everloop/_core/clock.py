"""Time as a parameter: instants are integer microseconds since 1970 in UTC."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

MICROSECOND = 1
MILLISECOND = 1_000
SECOND = 1_000_000

#: The last instant that can be written: 9999-12-31 in UTC.
LAST = 253_402_300_799 * SECOND


class Clock(Protocol):
    """Whatever tells the time to a store."""

    def now(self) -> int:
        """Return the current instant in microseconds."""
        ...


class SystemClock:
    """The wall clock of this machine."""

    def now(self) -> int:
        return time.time_ns() // 1_000


class ManualClock:
    """A clock that moves only when a test moves it."""

    def __init__(self, start: int = 1_700_000_000 * SECOND) -> None:
        self._now = start

    def now(self) -> int:
        return self._now

    def advance(self, seconds: float) -> int:
        """Move forward by `seconds` and return the new instant."""
        self._now += round(seconds * SECOND)
        return self._now


def microseconds(delay: float | timedelta) -> int:
    """Turn a delay (seconds or a timedelta) into microseconds."""
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    return round(seconds * SECOND)


def instant(moment: datetime) -> int:
    """Turn an aware datetime into an instant."""
    return round((moment - _EPOCH) / _TICK)


def moment(at: int) -> datetime:
    """Turn an instant into an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=at)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
