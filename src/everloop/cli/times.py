"""Times for human readers."""

from __future__ import annotations

from everloop._core.clock import SECOND
from everloop._core.records import Snapshot

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def span(seconds: float) -> str:
    """Return a duration in two or three digits.

    Example:
        >>> span(0.0421), span(4.2), span(75), span(7200)
        ('42 ms', '4.2 s', '1.2 min', '2 h')
    """
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    for size, unit in _UNITS:
        if seconds >= size:
            number = seconds / size
            return f"{number:.0f} {unit}" if number >= 10 or number.is_integer() else f"{number:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"


def ago(at: int, now: int) -> str:
    """Return how long ago an instant was; "in ..." for one that comes."""
    return span((now - at) / SECOND) if at <= now else f"in {span((at - now) / SECOND)}"


def length(call: Snapshot, now: int) -> str:
    """Return how long the last run of a call took, or has taken so far."""
    if call.started is None:
        return ""
    if call.ended is not None:
        return span((call.ended - call.started) / SECOND)
    return span((now - call.started) / SECOND) if call.session is not None else ""
