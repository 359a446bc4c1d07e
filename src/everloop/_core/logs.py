"""What runs have logged, as it crosses the store seam."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class LogRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One thing that a run has logged or printed.

    Attributes:
        at: The instant, by the worker's clock.
        level: A level's name, or "print".
        logger: The logger's name; of a print, nothing.
        text: What it says, with the traceback, if there is one.
    """

    at: int
    level: str
    logger: str
    text: str


class LogChunk(NamedTuple):
    """Some records in a row, of one run of one call.

    Attributes:
        id: The call's id.
        fence: Of the run's lease.
        n: The number of the first of them among all of the run; the first is 0.
        attempt: Which attempt the run is.
        records: They themselves.
    """

    id: str
    fence: int
    n: int
    attempt: int
    records: tuple[LogRecord, ...]
