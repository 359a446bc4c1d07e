"""The stores on a database server: connections, schema, and what each dialect does its own way."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

from everloop._core.clock import Clock
from everloop.store.sql.runners.listener import Listener
from everloop.store.sql.runners.server import ServerRunner
from everloop.store.sql.runners.thread import Fault
from everloop.store.sql.server_clock import ServerClock
from everloop.store.sql.sql_store import SqlStore
from everloop.store.sql.verbs.scope import Scope

C = TypeVar("C")


class ServerStore(SqlStore, Generic[C]):
    """Durable state on a database server (see `everloop.store.protocol.Store`).

    It has connections of its own, which no pool of the user's can hold up: one that writes, one that reads
    when something is read, and one that listens.

    Args:
        url: Of the database.
        clock: Tells the store's time; the server's own by default.
        fault: For tests: called before each statement and around each commit, and may raise.
    """

    def __init__(self, url: str, *, clock: Clock | None = None, fault: Fault | None = None) -> None:
        super().__init__(clock or ServerClock())
        self.url = url
        self._fault = fault
        self._hot: ServerRunner[C] | None = None
        self._reading: ServerRunner[C] | None = None

    def twin(self) -> Self:
        return type(self)(self.url, clock=self._clock, fault=self._fault)

    async def open(self) -> None:
        if self._hot is not None:
            return
        hot = self._thread("store")
        try:
            await hot.call(self._prepare)
        except BaseException:
            hot.close()
            raise
        self._hot = hot

    async def close(self) -> None:
        for runner in (self._hot, self._reading):
            if runner is not None:
                runner.close()

    async def tend(self) -> None:
        await self._runner().call_anew(self._set_clock)

    def listen(self, session: int, wake: Callable[[], None]) -> Callable[[], None]:
        return self._listener(session, wake).stop

    def _runner(self) -> ServerRunner[C]:
        if self._hot is None:
            raise RuntimeError("the store is not open: `await store.open()` first")
        return self._hot

    def _reader(self) -> ServerRunner[C]:
        if self._reading is None:
            self._runner()
            self._reading = self._thread("reads")
        return self._reading

    def _wake(self, scope: Scope) -> None:
        """The runner has done it, with the commit."""

    def _set_clock(self, connection: C) -> None:
        if isinstance(self._clock, ServerClock):
            self._clock.set(lambda: self._ask_time(connection))

    # -- the dialect's own ----------------------------------------------------------------------------------

    @abstractmethod
    def _thread(self, name: str) -> ServerRunner[C]:
        """Return a new runner."""

    @abstractmethod
    def _listener(self, session: int, wake: Callable[[], None]) -> Listener:
        """Return what listens for a session."""

    @abstractmethod
    def _prepare(self, connection: C) -> Any:
        """Check what was connected to, and make the schema where there is none; in the thread."""

    @abstractmethod
    def _ask_time(self, connection: C) -> int:
        """Ask the server for its instant in microseconds; in the thread."""
