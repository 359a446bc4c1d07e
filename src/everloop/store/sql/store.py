"""The SQL stores: the verbs of the protocol, each handed to a runner as one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING, TypeVar

from everloop._core.clock import Clock, SystemClock
from everloop._core.errors import UsageError
from everloop._core.gate import write_gate
from everloop._core.records import (
    Added,
    CallFilter,
    Cancelled,
    Lane,
    NewCall,
    Outcome,
    SessionInfo,
    Snapshot,
    Turn,
    TurnAnswer,
)
from everloop.store.sql.runners.borrowed import Borrowed, borrow
from everloop.store.sql.runners.doorbell import Doorbell
from everloop.store.sql.runners.hand import Hand, all_or_nothing, drive
from everloop.store.sql.runners.sqlite import Fault, SqliteRunner
from everloop.store.sql.runners.sqlite_entry import SQLITE, enter
from everloop.store.sql.runners.sqlite_file import SqliteFile
from everloop.store.sql.verbs import asking, sessions
from everloop.store.sql.verbs.adding import add, lanes_of
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.settling import settle
from everloop.store.sql.verbs.statement import Statement, Verb
from everloop.store.sql.verbs.turning import turn as take_turn
from everloop.store.transactions import UserTransaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")


class SqliteStore:
    """Durable state in an SQLite file (see `everloop.store.protocol.Store`).

    Args:
        path: The file; it is created when it is not there.
        clock: Tells the store's time.
        fault: For tests: called before each statement and around each commit, and may raise.
    """

    def __init__(self, path: str | Path, *, clock: Clock | None = None, fault: Fault | None = None) -> None:
        self.path = Path(path).absolute()
        self.url = f"sqlite:///{self.path}"
        self._clock = clock or SystemClock()
        self._fault = fault
        self._file = SqliteFile(self.path)
        self._bell = Doorbell(self.path)
        self._hot: SqliteRunner | None = None
        self._reading: SqliteRunner | None = None
        self._lanes: dict[Lane, int] = {}
        self._names: dict[int, Lane] = {}
        self._workers: set[int] = set()

    def twin(self) -> SqliteStore:
        return SqliteStore(self.path, clock=self._clock, fault=self._fault)

    async def open(self) -> None:
        if self._hot is not None:
            return
        self._file.check_place()
        gate = write_gate(self.path)
        hot = SqliteRunner(self._file.connect, "store", gate, self._fault)
        try:
            await hot.call(self._file.migrate)
        except BaseException:
            hot.close()
            raise
        self._hot = hot

    async def close(self) -> None:
        for runner in (self._hot, self._reading):
            if runner is not None:
                runner.close()
        self._bell.close()

    # -- sessions ---------------------------------------------------------------------------------------

    async def open_session(self, info: SessionInfo, lease: int) -> int:
        scope = self._scope(None)
        scope.lanes = await self._lanes_for(info.lanes)
        session = await self._write(scope, sessions.open_session(scope, info, lease))
        if info.kind == "worker":
            self._workers.add(session)
        return session

    async def serve(self, session: int, info: SessionInfo) -> None:
        scope = self._scope(session)
        scope.lanes = await self._lanes_for(info.lanes)
        await self._write(scope, sessions.serve(scope, info))
        if info.kind == "worker":
            self._workers.add(session)

    async def renew(self, session: int, lease: int) -> bool:
        scope = self._scope(session)
        return await self._write(scope, sessions.renew(scope, lease))

    async def close_session(self, session: int) -> None:
        scope = self._scope(session)
        await self._write(scope, sessions.close_session(scope))
        self._workers.discard(session)

    async def reap(self, *, overdue: bool = True) -> int:
        gone = self._bell.gone()
        if not (gone or overdue):
            return 0
        scope = self._scope(None)
        reaped = await self._write(scope, sessions.reap(scope, list(gone), overdue=overdue))
        for bell in gone.values():
            bell.unlink(missing_ok=True)
        return reaped

    # -- the hot path -----------------------------------------------------------------------------------

    async def turn(self, session: int, turn: Turn) -> TurnAnswer:
        scope = self._scope(session)
        scope.lanes = await self._lanes_for({*turn.lanes, *lanes_of(turn.adds)})
        scope.names = self._names
        # A turn that only takes the inbox need not sync: an inbox dies with its session.
        durable = bool(turn.lanes or turn.adds or turn.outcomes or turn.progress or turn.holding is not None)
        answer = await self._open_runner(self._hot).run(take_turn(scope, turn), durable=durable)
        self._wake(scope)
        return answer

    async def add(self, session: int | None, calls: Sequence[NewCall]) -> list[Added]:
        scope = self._scope(session)
        scope.lanes = await self._lanes_for(lanes_of(calls))
        return await self._write(scope, add(scope, calls))

    async def wait(self, session: int, ids: Sequence[str]) -> list[str]:
        scope = self._scope(session)
        return await self._write(scope, asking.wait(scope, ids))

    async def cancel(self, ids: Sequence[str], message: str = "") -> list[Cancelled]:
        scope = self._scope(None)
        return await self._write(scope, asking.cancel(scope, ids, message))

    # -- in a transaction of the user's -------------------------------------------------------------------

    async def settle_on(self, connection: AsyncConnection, outcome: Outcome) -> Callable[[], None] | None:
        from everloop.store.sql.runners.sqlalchemy import drive_on

        # Nobody is told in an answer: the user's transaction commits later, and may not.
        scope = self._scope(None)
        settled = await drive_on(connection, settle(scope, [outcome]), SQLITE)
        return partial(self._wake, scope) if settled[0] else None

    async def add_on(
        self, connection: object, calls: Sequence[NewCall]
    ) -> tuple[list[Added], UserTransaction]:
        borrowed = self._borrow(connection)
        scope = self._scope(None)
        await self._learn_lanes(lanes_of(calls))

        def work(hand: Hand) -> tuple[list[Added], UserTransaction]:
            enter(hand, self.path)
            verb = self._add_with_lanes(scope, calls)
            added = all_or_nothing(hand, lambda: drive(hand, verb, SQLITE), SQLITE)
            return added, hand.transaction()

        added, transaction = await borrowed.run(work)
        transaction.on_end(lambda committed: self._wake(scope) if committed else None)
        return added, transaction

    async def is_blocked_by(self, connection: object) -> bool:
        blocked: bool = await self._borrow(connection).run(lambda hand: hand.in_transaction)
        return blocked

    def _borrow(self, connection: object) -> Borrowed:
        borrowed = borrow(connection)
        if borrowed.dialect != "sqlite":
            raise UsageError(
                f"`connection` is on a {borrowed.dialect} database, and the calls of this app are on "
                f"{str(self.path)!r}: a transaction reaches one database. Take the connection from "
                "app.database(), or submit after the commit"
            )
        return borrowed

    async def _learn_lanes(self, lanes: Collection[Lane]) -> None:
        """Remember the lanes that are committed: the user's transaction keeps nobody from reading."""
        if self._hot is not None and any(lane not in self._lanes for lane in lanes):
            self._remember(await self._read(_known_lanes()))

    def _add_with_lanes(self, scope: Scope, calls: Sequence[NewCall]) -> Verb[list[Added]]:
        lanes = lanes_of(calls)
        scope.lanes = self._lanes
        if any(lane not in self._lanes for lane in lanes):
            # Here, for this transaction keeps the store itself from writing. Not remembered: when it is
            # rolled back, their numbers may become those of others.
            scope.lanes = yield from _number(lanes)
        return (yield from add(scope, calls))

    # -- reads --------------------------------------------------------------------------------------------

    async def get(self, ids: Sequence[str]) -> list[Snapshot | None]:
        return await self._read(asking.get(ids))

    async def find(self, filter: CallFilter) -> list[Snapshot]:
        return await self._read(asking.find(filter))

    async def counts(self, app: str | None = None, queue: str | None = None) -> dict[str, int]:
        return await self._read(asking.counts(app, queue))

    async def serving(self, app: str) -> list[tuple[str, str]]:
        return await self._read(asking.serving(self._scope(None), app))

    # -- hints and upkeep -----------------------------------------------------------------------------------

    def listen(self, session: int, wake: Callable[[], None]) -> Callable[[], None]:
        return self._bell.listen(session, wake, worker=session in self._workers)

    async def tend(self) -> None:
        await self._open_runner(self._hot).call(self._checkpoint)

    def _checkpoint(self, connection: Connection) -> None:
        self._file.checkpoint(connection)

    # -- transactions ---------------------------------------------------------------------------------------

    def _scope(self, session: int | None) -> Scope:
        return Scope(self._clock, session)

    async def _write(self, scope: Scope, verb: Verb[T]) -> T:
        answer = await self._open_runner(self._hot).run(verb)
        self._wake(scope)
        return answer

    def _wake(self, scope: Scope) -> None:
        """After a commit: ring who has something to look at."""
        if scope.rung or scope.ready:
            self._bell.ring(scope.rung, workers=scope.ready)

    async def _read(self, verb: Verb[T]) -> T:
        if self._reading is None:
            self._open_runner(self._hot)
            gate = write_gate(self.path)
            self._reading = SqliteRunner(self._file.connect, "reads", gate, self._fault)
        return await self._reading.run(verb, write=False)

    def _open_runner(self, runner: SqliteRunner | None) -> SqliteRunner:
        if runner is None:
            raise RuntimeError("the store is not open: `await store.open()` first")
        return runner

    async def _lanes_for(self, lanes: Collection[Lane]) -> dict[Lane, int]:
        """Number the lanes; new ones get theirs in a transaction of their own, once."""
        if any(lane not in self._lanes for lane in lanes):
            known = await self._open_runner(self._hot).run(_number(lanes))
            self._remember(known)
        return self._lanes

    def _remember(self, known: dict[Lane, int]) -> None:
        self._lanes.update(known)
        self._names.update({number: lane for lane, number in known.items()})


def _number(lanes: Collection[Lane]) -> Verb[dict[Lane, int]]:
    yield Statement("lane_add", {"lanes": [list(lane) for lane in lanes]})
    return (yield from _known_lanes())


def _known_lanes() -> Verb[dict[Lane, int]]:
    rows = yield Statement("lane_all", {})
    return {Lane(app, queue, fn): number for number, app, queue, fn in rows}
