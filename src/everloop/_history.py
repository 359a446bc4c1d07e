"""What is told of a call: how far it is, how each of its runs ended, and what it has logged."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from everloop._core.clock import moment
from everloop._core.errors import TaskNotFound
from everloop._core.logs import LogChunk
from everloop._core.runs import RunKind, RunRecord, left_out
from everloop.store.protocol import Store


class Progress:
    """How far a running call said it is.

    Attributes:
        done: Units done.
        total: Units in all, or None when that is not known.
        note: A short text.
    """

    __module__ = "everloop"
    __slots__ = ("done", "note", "total")

    def __init__(self, done: float, total: float | None, note: str) -> None:
        self.done, self.total, self.note = done, total, note

    def __repr__(self) -> str:
        return f"Progress({self.done:g}/{'?' if self.total is None else f'{self.total:g}'}, {self.note!r})"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a call, as it ended.

    Attributes:
        number: Which attempt it was, the first is 1. A run that crashed or was released is followed by
            another one of this number.
        kind: "succeeded", "failed" and "cancelled" are attempts; "crashed" is a run whose worker died;
            "released" one that was given back unharmed (a drain, `RetryAfter`).
        started: When a worker took the call.
        ended: When the store heard of the end.
        error: What its body raised, or None.
        host: The worker's machine, and `pid` its process; None when that is no longer known.
        session: The worker's session.
    """

    __module__ = "everloop"

    number: int
    kind: RunKind
    started: datetime | None
    ended: datetime
    error: BaseException | None
    host: str | None
    pid: int | None
    session: int | None


class History(list[Run]):
    """The runs of a call, oldest first.

    Attributes:
        left_out: How many attempts and crashes, in the middle, are not kept.
    """

    __module__ = "everloop"

    def __init__(self, runs: list[Run], left_out: int) -> None:
        super().__init__(runs)
        self.left_out = left_out


@dataclass(frozen=True, slots=True)
class LogLine:
    """Something that a run of a call has logged or printed.

    Attributes:
        at: When, by the worker's clock.
        attempt: In which attempt.
        level: The level's name, or "print".
        logger: The logger's name; of a print, nothing.
        text: What it says.
    """

    __module__ = "everloop"

    at: datetime
    attempt: int
    level: str
    logger: str
    text: str


class Reader(Protocol):
    """What turns stored errors into exceptions: the app."""

    def missing(self, id_: object) -> TaskNotFound: ...
    def read_error(self, name: str, stored: bytes, task_id: str) -> BaseException: ...


async def read_history(store: Store, reader: Reader, id_: str, name: str) -> History:
    """Read the history of the call with this id, of the function `name`.

    Raises:
        TaskNotFound: No call has this id.
    """
    (call,) = await store.get([id_])
    if call is None:
        raise reader.missing(id_)
    (records,) = await store.runs([id_])

    def run(record: RunRecord) -> Run:
        started = None if record.started is None else moment(record.started)
        error = None if record.error is None else reader.read_error(name, record.error, id_)
        return Run(
            record.number, record.kind, started, moment(record.ended), error,
            record.host, record.pid, record.session,
        )  # fmt: skip

    return History([run(record) for record in records], max(0, left_out(records, call.attempt, call.crashes)))


async def read_logs(store: Store, id_: str) -> list[LogLine]:
    """Read what the runs of the call with this id have logged."""
    return [
        LogLine(moment(record.at), chunk.attempt, record.level, record.logger, record.text)
        async for chunk in chunks_of(store, id_)
        for record in chunk.records
    ]


async def chunks_of(store: Store, id_: str, after: tuple[int, int] = (0, 0)) -> AsyncGenerator[LogChunk]:
    """Give what the runs of a call have logged, page by page."""
    while chunks := await store.logs(id_, after):
        for chunk in chunks:
            yield chunk
        after = chunks[-1].fence, chunks[-1].n
