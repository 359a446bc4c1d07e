"""The stores on a database server: connections, schema, and what each dialect does its own way."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Generic, Self, TypeVar

from everloop._core.clock import Clock
from everloop._core.errors import ConfigError, SchemaError, StoreError, StoreUnavailable, UsageError
from everloop._core.looks import Vitals
from everloop._core.records import Added, Lane, NewCall
from everloop._core.text import without_password
from everloop.store.protocol import NOBODY
from everloop.store.sql.blocked import LATE, Blocked
from everloop.store.sql.dialect import GOES_ON, Migration, migrations, newer, under
from everloop.store.sql.runners.hand import Hand, drive_whole
from everloop.store.sql.runners.listener import Listener
from everloop.store.sql.runners.server import CannotOpen, Held, ServerRunner
from everloop.store.sql.runners.thread import Fault
from everloop.store.sql.server_clock import ServerClock
from everloop.store.sql.sql_store import SqlStore
from everloop.store.sql.verbs.adding import add_in_haste, lanes_of
from everloop.store.sql.verbs.lately import Lately
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement, Verb

log = logging.getLogger("everloop")

C = TypeVar("C")

#: Noted of a connection: which database it is on.
_ENTERED = "everloop.entered"


class ServerStore(SqlStore, Generic[C]):
    """Durable state on a database server (see `everloop.store.protocol.Store`).

    It has connections of its own, which no pool of the user's can hold up: one for the turns, one that
    listens, and, once they are used, one for what a user's open transaction may hold up (keyed calls,
    cancellations), one for calls with chosen ids, and one that reads.

    Args:
        url: Of the database.
        clock: Tells the store's time; the server's own by default.
        fault: For tests: called before each statement and around each commit, and may raise.
    """

    #: Microseconds by which calls of two processes may get numbers out of order.
    disorder = 0

    def __init__(self, url: str, *, clock: Clock | None = None, fault: Fault | None = None) -> None:
        super().__init__(clock or ServerClock())
        self.url = url
        self._fault = fault
        self._shown = without_password(url)
        self._blocked = Blocked()
        self._lately = Lately(self.disorder)
        self._identity = 0  # the number that this database was given with its schema
        self._hot: ServerRunner[C] | None = None
        self._beside: ServerRunner[C] | None = None
        self._naming: ServerRunner[C] | None = None
        self._reading: ServerRunner[C] | None = None

    def twin(self) -> Self:
        return type(self)(self.url, clock=self._clock, fault=self._fault)

    async def open(self) -> None:
        if self._hot is not None:
            return
        hot = self._thread("store")
        try:
            await hot.call(self._prepare)
        except CannotOpen as error:
            hot.close()
            if error.lasting:
                raise ConfigError(str(error)) from error
            raise
        except BaseException:
            hot.close()
            raise
        self._hot = hot

    async def migrations(self) -> tuple[int, list[Migration]]:
        runner = self._thread("migrations")
        try:
            found = await runner.call(self._found)
        finally:
            runner.close()
        return found, [each for each in migrations(self.dialect) if each.number > found]

    async def migrate(self) -> None:
        runner = self._thread("migrations")
        try:
            await runner.call(self._apply)
        finally:
            runner.close()

    def _found(self, connection: C) -> int:
        self._check_server(connection)
        return self._schema(connection)

    def _apply(self, connection: C) -> None:
        try:
            self._migrate(connection)
        except StoreError as error:
            if not self._forbidden(error.__cause__):
                raise
            raise ConfigError(
                f"the user of {self._shown} may not make Everloop's tables there: {error}. {self._grant()}; "
                "or let one who may run `everloop migrate URL` (with --sql it prints what it would do)"
            ) from error

    async def close(self) -> None:
        for runner in (self._hot, self._beside, self._naming, self._reading):
            if runner is not None:
                runner.close()

    async def add(self, session: int | None, calls: Sequence[NewCall]) -> list[Added]:
        if not any(call.named for call in calls):
            return await super().add(session, calls)
        await self._number(lanes_of(calls))
        return await self._add_named(session, calls)

    async def _add_named(self, session: int | None, calls: Sequence[NewCall]) -> list[Added]:
        """Add calls with chosen ids; where a transaction that is open has one of them, in halves.

        An id of such a transaction can only be waited for: to add the same one tells whether it is there.
        """
        try:
            return await self._write_on(self._namer(), partial(add_in_haste, calls=calls), session)
        except Held:
            if len(calls) == 1:
                return [Added(calls[0].id, "busy")]
            half = len(calls) // 2
            first = await self._add_named(session, calls[:half])
            return [*first, *await self._add_named(session, calls[half:])]

    async def reap(self, *, overdue: bool = True, dead: Mapping[int, str] = NOBODY) -> int:
        reaped = await super().reap(overdue=overdue, dead=dead)
        if overdue and self._blocked.may_look(reaped=reaped > 0):
            await self._runner().call_anew(partial(self._unblock, before=self.now() - LATE))
        return reaped

    async def tend(self) -> None:
        await self._runner().call_anew(self._set_clock)

    def listen(self, session: int, wake: Callable[[], None]) -> Callable[[], None]:
        return self._listener(session, wake).stop

    def _scope(self, session: int | None) -> Scope:
        scope = super()._scope(session)
        scope.lately = self._lately
        return scope

    def _runner(self) -> ServerRunner[C]:
        if self._hot is None:
            raise RuntimeError("the store is not open: `await store.open()` first")
        return self._hot

    def _apart(self) -> ServerRunner[C]:
        if self._beside is None:
            self._runner()
            self._beside = self._thread("beside")
        return self._beside

    def _namer(self) -> ServerRunner[C]:
        if self._naming is None:
            self._runner()
            self._naming = self._thread("names")
            self._naming.hasty = True
        return self._naming

    def _reader(self) -> ServerRunner[C]:
        if self._reading is None:
            self._runner()
            self._reading = self._thread("reads")
        return self._reading

    def _wake(self, scope: Scope) -> None:
        """The runner has done it, with the commit."""

    def _ring(self, scope: Scope) -> None:
        if self._hot is not None and (scope.rung or scope.ready):
            self._hot.post(partial(self._hot.wake, scope=scope))

    async def is_blocked_by(self, connection: object) -> bool:
        self._borrow(connection)
        return False

    async def _learn_lanes(self, lanes: Collection[Lane]) -> None:
        # On a connection of ours: in a transaction of the user's, a new lane would hold up whoever wants it.
        await self._number(lanes)

    def _enter(self, hand: Hand) -> None:
        if not hand.in_transaction:
            raise UsageError(
                f"the connection to {self._shown} has no transaction open, because its driver commits each "
                "statement by itself (autocommit): begin one first, or take the connection from "
                "app.database()"
            )
        if hand.notes.get(_ENTERED) == self._identity:
            return
        try:
            rows = drive_whole(hand, _ask_identity(), self._folding)
        except StoreUnavailable:
            raise
        except StoreError as error:
            raise UsageError(
                f"`connection` is on a database in which Everloop's tables could not be read ({error}), and "
                f"the calls of this app are on {self._shown}: a transaction reaches one database. Take the "
                "connection from app.database(), or submit after the commit"
            ) from error
        if rows != [[self._identity]]:
            raise UsageError(
                "`connection` is on another database than the calls of this app, which are on "
                f"{self._shown}: a transaction reaches one database. Take the connection from "
                "app.database(), or submit after the commit"
            )
        hand.notes[_ENTERED] = self._identity

    def _set_clock(self, connection: C) -> None:
        if isinstance(self._clock, ServerClock):
            self._clock.set(lambda: self._ask_time(connection))

    async def vitals(self) -> Vitals:
        return await self._reader().call_anew(self._vitals)

    # -- the dialect's own ----------------------------------------------------------------------------------

    @abstractmethod
    def _thread(self, name: str) -> ServerRunner[C]:
        """Return a new runner."""

    @abstractmethod
    def _listener(self, session: int, wake: Callable[[], None]) -> Listener:
        """Return what listens for a session."""

    def _prepare(self, connection: C) -> None:
        """Check what was connected to, and make the schema where there is none; in the thread.

        Raises:
            ConfigError: The server is too old, or may not be used.
            SchemaError: The schema is older than this version, or newer.
        """
        self._check_server(connection)
        newest = migrations(self.dialect)[-1].number
        found = self._schema(connection)
        if found == 0:
            self._apply(connection)
            found = self._schema(connection)
        if found > newest:
            oldest = self._read_meta(connection, under(found)) or found
            if oldest > newest:
                raise SchemaError(newer("the store", found, newest))
            log.info(GOES_ON, self._shown, found, newest)
        if found < newest:
            raise SchemaError(
                f"the store has schema {found}, and this version of Everloop needs {newest}; workers of the "
                f"release before go on with it. Bring it up to date: everloop migrate {self._shown}"
            )
        self._identity = self._read_meta(connection, "identity")

    @abstractmethod
    def _check_server(self, connection: C) -> None:
        """Refuse a server on which the store could not keep its word.

        Raises:
            ConfigError: It is too old, or set in such a way.
        """

    @abstractmethod
    def _schema(self, connection: C) -> int:
        """Return the schema's number; 0 when there is none."""

    @abstractmethod
    def _migrate(self, connection: C) -> None:
        """Apply the migrations that are missing, one process at a time; a database's first also names it."""

    @abstractmethod
    def _vitals(self, connection: C) -> Vitals:
        """Return what the server tells of itself; in the thread."""

    @abstractmethod
    def _forbidden(self, error: BaseException | None) -> bool:
        """Tell whether the driver's error is about rights."""

    @abstractmethod
    def _grant(self) -> str:
        """Return what an administrator executes."""

    @abstractmethod
    def _unblock(self, connection: C, before: int) -> None:
        """End what holds rows of sessions that should have ended `before`; tell what is the user's."""

    @abstractmethod
    def _read_meta(self, connection: C, name: str) -> int:
        """Return what the schema says of itself under this name; 0 where it says nothing."""

    @abstractmethod
    def _ask_time(self, connection: C) -> int:
        """Ask the server for its instant in microseconds; in the thread."""


def _ask_identity() -> Verb[list[list[int]]]:
    rows: list[list[int]] = yield Statement("identity", {})
    return rows
