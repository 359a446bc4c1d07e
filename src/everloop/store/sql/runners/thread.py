"""A connection in a thread of its own: what the runners have in common.

A whole transaction is one hop to the thread and back. Nothing of a user's loop is in it: a coroutine that
blocks the loop, or is cancelled, never leaves a transaction open with its locks held.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from everloop._core import forks
from everloop._core.errors import ClosedError
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Verb

log = logging.getLogger("everloop")

#: Seconds that whoever leaves waits for a connection that is being made.
CONNECTING_S = 0.5

C = TypeVar("C")
T = TypeVar("T")

#: Called with (statement name, index) before each statement, and around COMMIT: tests make it raise.
Fault = Callable[[str, int], None]
#: Begins a verb: its surroundings, and the generator. Called anew for each attempt at its transaction.
Begin = Callable[[], tuple[Scope, Verb[T]]]


def leave(thread: threading.Thread, connecting: Callable[[], bool]) -> None:
    """Wait for the end of a thread; not for a connection that it is making, which may take its time."""
    thread.join(CONNECTING_S)
    while thread.is_alive() and not connecting():
        thread.join(CONNECTING_S)


class ConnectionThread(ABC, Generic[C]):
    """One connection in one thread of its own; `run` sends it a verb, and gives the answer to come."""

    def __init__(self, name: str, fault: Fault | None) -> None:
        self._fault = fault
        self._work: SimpleQueue[tuple[Callable[[C], Any], asyncio.Future[Any] | None] | None] = SimpleQueue()
        self._connection: C | None = None
        self._closed = False
        self._connecting = False
        self._left = False  # whoever closed this does not wait any more
        self._busy = threading.Lock()  # held while it is at work: a fork waits for that
        forks.busy_with(self._busy)
        self._thread = threading.Thread(target=self._loop, name=f"everloop-{name}", daemon=True)
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether work is being done, or waits."""
        return self._busy.locked() or not self._work.empty()

    @abstractmethod
    def run(
        self, begin: Begin[T], *, write: bool = True, durable: bool = True
    ) -> asyncio.Future[tuple[Scope, T]]:
        """Send a verb, to be run in a transaction; return its answer to come, after the commit.

        Without `durable` the commit survives the death of the process but perhaps not that of the machine:
        for what dies with the machine anyway.
        """

    def call(self, work: Callable[[C], T]) -> asyncio.Future[T]:
        """Send `work`, to be called with the connection in the thread; return its answer to come.

        Work that was sent is done, also when its caller is cancelled: only the answer is dropped.
        """
        if self._closed:
            raise ClosedError("the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._work.put((work, future))
        return future

    def post(self, work: Callable[[C], object]) -> None:
        """Send `work` of which nobody needs an answer, from any thread: a hint to others, say."""
        if not self._closed:
            self._work.put((work, None))

    def close(self) -> None:
        """Close the connection and end the thread, after the work that was sent. Idempotent.

        Where there is no connection yet, because the server says nothing, that is not waited for: the work
        fails, and the thread ends when the attempt does.
        """
        if not self._closed:
            self._closed = True
            self._work.put(None)
            leave(self._thread, lambda: self._connecting)
            self._left = True

    # -- in the thread --------------------------------------------------------------------------------

    @abstractmethod
    def _connect(self) -> C:
        """Open the connection."""

    @abstractmethod
    def _disconnect(self, connection: C) -> None:
        """Close it."""

    def _loop(self) -> None:
        while (sent := self._work.get()) is not None:
            work, future = sent
            try:
                with self._busy:
                    answer = work(self._open())
                _deliver(future, answer, None)
                del answer
            except BaseException as error:  # noqa: BLE001 - delivered to the caller
                _deliver(future, None, error)
            del sent, work, future  # a thread that waits keeps nothing of its callers alive
        if self._connection is not None:
            self._disconnect(self._connection)

    def _open(self) -> C:
        if self._connection is not None:
            return self._connection
        self._connecting = True
        try:
            connection = None if self._left else self._connect()
        finally:
            self._connecting = False
        if connection is not None and self._left:
            self._disconnect(connection)
            connection = None
        if connection is None:
            raise ClosedError("the store was closed before there was a connection")
        self._connection = connection
        return connection

    def _meet_fault(self, name: str, done: int) -> None:
        if self._fault is not None:
            self._fault(name, done)


def _deliver(future: asyncio.Future[T] | None, answer: Any, error: BaseException | None) -> None:
    if future is None:
        if error is not None:
            log.debug("everloop: a hint could not be given: %s", error)
        return

    def settle() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(answer)
        else:
            future.set_exception(error)

    try:
        future.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:
        # The loop is closed: nobody waits any more. What was committed stays committed.
        return
