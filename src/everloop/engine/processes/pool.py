"""The processes in which a worker runs `run="process"` functions."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from everloop.engine.attempt import Attempt
from everloop.engine.executor import RetryAfter
from everloop.engine.processes import wire
from everloop.engine.processes.child import Child

log = logging.getLogger("everloop")

#: Seconds until a call is tried again for which no process could be started.
AGAIN = 1.0


class ProcessPool:
    """Processes of one worker: started when they are needed, kept, and ended with the worker.

    How many there are is the worker's to say: it leases no more calls than it has processes for.
    """

    def __init__(self) -> None:
        self._idle: list[Child] = []
        self._all: set[Child] = set()
        self._pid = os.getpid()

    async def run(self, home: wire.Home, attempt: Attempt) -> bytes:
        """Run one call in a process; see `Child.run` for what is raised."""
        child = self._take()
        try:
            value = await child.run(wire.Run(home, attempt.leased), attempt)
        finally:
            if child.usable:
                self._idle.append(child)
            else:
                self._all.discard(child)
        return value

    def _take(self) -> Child:
        while self._idle:
            child = self._idle.pop()
            if child.usable:
                return child
            self._all.discard(child)
        try:
            child = Child(setup())
        except OSError as error:
            log.warning("everloop: no process could be started (%s); trying again", error)
            raise RetryAfter(AGAIN) from error
        self._all.add(child)
        return child

    async def close(self) -> None:
        """End every process; a fork has none."""
        if os.getpid() == self._pid and self._all:
            closing = [asyncio.ensure_future(child.close()) for child in self._all]
            await asyncio.wait(closing)
        self._all.clear()
        self._idle.clear()


def setup() -> wire.Setup:
    """Return how a process of this worker begins: its path, its arguments, and its logging."""
    root = logging.getLogger()
    streams = [h for h in root.handlers if isinstance(h, logging.StreamHandler)]
    formatter = streams[0].formatter if streams else None
    return wire.Setup(
        path=list(sys.path),
        argv=list(sys.argv),
        level=root.level if streams else None,
        form=None if formatter is None else formatter._fmt,  # noqa: SLF001 - it has no other name
    )
