"""An attempt: one run of one leased call, and what it tells and is told while it runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextvars import ContextVar
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, Protocol

from everloop._core.logs import LogRecord
from everloop._core.records import Leased, Parent, Progress

if TYPE_CHECKING:
    import logging

    from everloop.engine.scribe import Page

#: Why a running attempt was asked to stop. "lost" is not shown to users: the lease went to another.
Stopping = Literal["cancelled", "timeout", "shutdown", "lost"]


class Scribing(Protocol):
    """Who writes down what a body logs, from this level on; from any thread."""

    level: int

    def logged(self, attempt: Attempt, record: logging.LogRecord) -> None: ...
    def printed(self, attempt: Attempt, text: str) -> None: ...
    def told(self, attempt: Attempt, record: LogRecord) -> None: ...


class Attempt:
    """One run of a leased call.

    Its pending owned children decide about its slot: while there is one, the attempt is suspended and
    another call may run in its place.
    """

    __slots__ = (
        "_adding",
        "_ordinals",
        "_over",
        "_pending",
        "_resume",
        "_suspend",
        "_then",
        "_told",
        "_waits",
        "began",
        "in_child",
        "leased",
        "message",
        "on_beat",
        "on_progress",
        "page",
        "progress",
        "scribe",
        "settled_inside",
        "stopping",
        "task",
        "thread",
    )

    def __init__(self, leased: Leased, suspend: Callable[[], None], resume: Callable[[], None]) -> None:
        self.leased = leased
        self.stopping: Stopping | None = None
        self.message = ""
        self.task: asyncio.Task[None] | None = None
        self.progress: Progress | None = None
        self.settled_inside = False  # the outcome was committed by the body's own transaction
        # Invariant: suspended exactly while pending > 0.
        self._pending = 0
        self._over = False
        self._adding = 0  # children on their way to the store, apart from the turns
        self._then: Callable[[], None] | None = None
        self._suspend = suspend
        self._resume = resume
        self._ordinals: dict[str, int] | None = None
        # What waits on the loop for a thread of this body; and whether that was told to stop.
        self._waits: set[asyncio.Task[Any]] | None = None
        self._told = False
        self.began = False  # whether the body's task has taken its first step
        self.scribe: Scribing | None = None  # who writes down what it logs
        self.page: Page | None = None  # and where, once it has logged something
        self.on_progress: Callable[[Progress], None] | None = None
        self.on_beat: Callable[[], None] | None = None
        self.thread: int | None = None  # in which its body runs, where that is not the loop's
        self.in_child = False  # it runs in a process that its worker has started

    @property
    def parent(self) -> Parent:
        """What a child says of its parent."""
        return Parent(self.leased.id, self.leased.fence)

    @property
    def detaching(self) -> bool:
        """Whether ending now must leave the children alone."""
        return self.stopping in ("shutdown", "lost")

    @property
    def suspended(self) -> bool:
        """Whether it waits for an owned child."""
        return self._pending > 0

    def child_key(self, fn: str, args: bytes) -> str:
        """Name the next child by function, argument digest, and ordinal among equals."""
        digest = blake2b(fn.encode() + b"\0" + args, digest_size=16).hexdigest()
        if self._ordinals is None:
            self._ordinals = {}
        ordinal = self._ordinals[digest] = self._ordinals.get(digest, 0) + 1
        return f"{digest}.{ordinal}"

    def child_began(self) -> None:
        """Count an owned child that is pending."""
        if self._over:
            return
        self._pending += 1
        if self._pending == 1:
            self._suspend()

    def child_ended(self) -> None:
        """Count it back."""
        if self._over:
            return
        self._pending -= 1
        if self._pending == 0:
            self.beat()  # while it waited it could give no sign of life
            self._resume()

    def add_began(self) -> None:
        """Count a child that travels to the store apart from the turns."""
        self._adding += 1

    def add_ended(self) -> None:
        """Count it back."""
        self._adding -= 1
        if self._adding == 0 and self._then is not None:
            then, self._then = self._then, None  # what the body has started may add more, later
            then()

    def once_added(self, then: Callable[[], None]) -> None:
        """Call `then` when no child is on its way any more; now, as a rule."""
        if self._adding == 0:
            then()
        else:
            self._then = then

    def end(self) -> None:
        """Note that the body is over: children of it that are pending still count no more."""
        self._over = True
        if self._pending:
            self._resume()

    def stop(self, reason: Stopping, message: str = "") -> None:
        """Ask the body to stop: it gets `CancelledError` where it waits. The first reason stays."""
        if self.stopping is None or reason == "lost":
            self.stopping = reason
            self.message = message
        if self.began and self.task is not None and not self.task.done():
            self.task.cancel(message or None)
        for waiting in self._waits or ():
            self._told = True
            waiting.cancel(message or None)

    def waits_in(self, task: asyncio.Task[Any]) -> None:
        """Note that a thread of this body waits for `task`; a stop that it has not heard of is told here.

        Raises:
            asyncio.CancelledError: It was asked to stop, and does not know yet.
        """
        if self.stopping is not None and not self._told:
            self._told = True
            raise asyncio.CancelledError(self.message)
        if self._waits is None:
            self._waits = set()
        self._waits.add(task)

    def waited_in(self, task: asyncio.Task[Any]) -> None:
        """Note that it waits no more."""
        if self._waits is not None:
            self._waits.discard(task)

    def beat(self) -> None:
        """Note a sign of life."""
        if self.on_beat is not None:
            self.on_beat()

    def report(self, done: float, total: float | None, note: str) -> None:
        """Note progress; it is stored with the next turn."""
        self.beat()
        self.progress = Progress(self.leased.id, self.leased.fence, done, total, note)
        if self.on_progress is not None:
            self.on_progress(self.progress)


#: The attempt in whose body this code runs.
CURRENT: ContextVar[Attempt | None] = ContextVar("everloop_attempt", default=None)

# A process that a body forks is not the attempt: its loop is the parent's.
os.register_at_fork(after_in_child=lambda: CURRENT.set(None))
