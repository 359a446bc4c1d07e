"""The workers of an app, as their sessions tell of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from everloop._core.clock import SECOND, moment
from everloop._core.looks import SessionLook


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker: its process, what it serves, and how it was when it last renewed its leases.

    The last five are None until it has told of itself for the first time.

    Attributes:
        session: The number of its session.
        host: Its machine, and `pid` its process.
        started: When its session was opened.
        alive: Whether its lease has not run out.
        queues: The queues that it serves.
        calls: How many calls it holds: those that run, and those that wait for their children.
        running: How many bodies run, out of `slots`.
        memory: Bytes that its process holds; processes of `run="process"` are not counted.
        memory_limit: Bytes beyond which it is replaced (`--max-memory`); None where that was not asked for.
        lag: Seconds that its loop took to answer, the longest of the last few times: it is asked each second.
    """

    __module__ = "everloop"

    session: int
    host: str
    pid: int
    started: datetime
    alive: bool
    queues: tuple[str, ...]
    calls: int
    running: int | None
    slots: int | None
    memory: int | None
    memory_limit: int | None
    lag: float | None


def workers_of(sessions: Iterable[SessionLook], now: int) -> list[WorkerInfo]:
    """Return the workers among the sessions of a store, whose instant is `now`."""
    return [worker_of(look, now) for look in sessions if look.kind == "worker"]


def worker_of(look: SessionLook, now: int) -> WorkerInfo:
    """Return what the session of a worker tells, at the store's instant `now`."""
    gauges = look.gauges
    return WorkerInfo(
        session=look.number,
        host=look.host,
        pid=look.pid,
        started=moment(look.opened),
        alive=look.until > now,
        queues=look.queues,
        calls=look.leased,
        running=None if gauges is None else gauges.running,
        slots=None if gauges is None else gauges.slots,
        memory=None if gauges is None else gauges.memory,
        memory_limit=None if gauges is None else gauges.memory_limit,
        lag=None if gauges is None else gauges.lag / SECOND,
    )
