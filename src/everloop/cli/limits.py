"""After how much memory, or how many calls, a worker is replaced by a fresh one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import click

from everloop.engine.gauges import resident
from everloop.engine.worker import Worker

_UNITS = {"": 1, "K": 1_000, "M": 1_000**2, "G": 1_000**3, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(K|M|G|KI|MI|GI)?B?", re.IGNORECASE)


def read_size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Read an amount of memory: 500MB, 1.5GiB, or a number of bytes.

    Raises:
        click.BadParameter: It is none, or too little.
    """
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise click.BadParameter(f"{value!r} is no size; write 500MB, 1.5GiB, or a number of bytes")
    size = round(float(match[1]) * _UNITS[(match[2] or "").upper()])
    if size < 1_000_000:
        raise click.BadParameter(f"{value!r} is less than a megabyte, and no worker is that small")
    return size


def read_silence(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Read for how long a loop may be silent: seconds, or `none` for ever, which is infinite.

    Raises:
        click.BadParameter: It is neither, or too short for a keeper that looks once a second.
    """
    if value is None:
        return None
    if value.strip().lower() == "none":
        return math.inf
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds < math.inf:
        raise click.BadParameter(
            f"{value!r} is no limit; write a number of seconds, 1 or more (600), or none to never end it"
        )
    return seconds


def shown(size: int) -> str:
    """Return a size in megabytes.

    Example:
        >>> shown(512_300_000)
        '512 MB'
    """
    return f"{size / 1e6:.0f} MB"


@dataclass(frozen=True)
class Limits:
    """What one worker process may use up.

    Attributes:
        memory: Bytes of resident memory, or None.
        calls: How many calls it begins, or None.
    """

    memory: int | None = None
    calls: int | None = None

    def __bool__(self) -> bool:
        return self.memory is not None or self.calls is not None

    def passed(self, worker: Worker) -> str:
        """Say which is passed; an empty text when none is."""
        if self.calls is not None and worker.begun >= self.calls:
            return f"this worker has run {worker.begun} calls (--max-calls {self.calls})"
        held = resident() if self.memory is not None else 0
        if self.memory is not None and held > self.memory:
            return f"this worker holds {shown(held)} (--max-memory {shown(self.memory)})"
        return ""
