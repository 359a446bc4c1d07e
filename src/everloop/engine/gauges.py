"""Gauges: what a worker's process takes, and how quickly its loop answers."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from everloop._core.looks import Gauges
from everloop.engine.worker import Worker


def resident() -> int:
    """Return the bytes of memory that this process holds; the most it ever held, where only that is told."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")


def read_gauges(worker: Worker, lag: float) -> Gauges:
    """Return what there is to tell of a worker; from any thread.

    Args:
        worker: The worker of this process.
        lag: The longest that its loop has lately let anybody wait, in seconds.
    """
    slots = worker.slots
    return Gauges(
        memory=resident(),
        memory_limit=worker.memory_limit,
        lag=round(lag * 1_000_000),
        running=slots.running,
        slots=slots.size,
    )
