"""An attempt: one run of one leased call, and what it tells and is told while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

from everloop._core.records import Leased, Parent, Progress

if TYPE_CHECKING:
    from everloop.engine.scribe import Page, Scribe

#: Why a running attempt was asked to stop. "lost" is not shown to users: the lease went to another.
Stopping = Literal["cancelled", "timeout", "shutdown", "lost"]


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
        "began",
        "leased",
        "message",
        "on_progress",
        "page",
        "progress",
        "scribe",
        "settled_inside",
        "stopping",
        "task",
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
        self.began = False  # whether the body's task has taken its first step
        self.scribe: Scribe | None = None  # who writes down what it logs
        self.page: Page | None = None  # and where, once it has logged something
        self.on_progress: Callable[[Progress], None] | None = None

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
            self._resume()

    def add_began(self) -> None:
        """Count a child that travels to the store apart from the turns."""
        self._adding += 1

    def add_ended(self) -> None:
        """Count it back."""
        self._adding -= 1
        if self._adding == 0 and self._then is not None:
            self._then()

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

    def report(self, done: float, total: float | None, note: str) -> None:
        """Note progress; it is stored with the next turn."""
        self.progress = Progress(self.leased.id, self.leased.fence, done, total, note)
        if self.on_progress is not None:
            self.on_progress(self.progress)


#: The attempt in whose body this code runs.
CURRENT: ContextVar[Attempt | None] = ContextVar("everloop_attempt", default=None)
