"""The SQL stores: the verbs of the protocol, each handed to a runner as one transaction."""

from __future__ import annotations

import asyncio
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from everloop._core.clock import Clock
from everloop._core.errors import StoreUnavailable, UsageError
from everloop._core.keeping import Pruned, Pruning
from everloop._core.logs import LogChunk
from everloop._core.looks import Backlog, Gauges, SessionLook, Vitals
from everloop._core.records import (
    Added,
    CallFilter,
    Cancelled,
    Lane,
    NewCall,
    Outcome,
    Parent,
    SessionInfo,
    Snapshot,
    Turn,
    TurnAnswer,
)
from everloop._core.runs import RunRecord
from everloop.store.protocol import NOBODY
from everloop.store.sql.dialect import Migration, migrations, oldest_of, split, under
from everloop.store.sql.runners.borrowed import Borrowed, borrow
from everloop.store.sql.runners.hand import Hand, drive_whole
from everloop.store.sql.runners.thread import ConnectionThread
from everloop.store.sql.spelling import Folding
from everloop.store.sql.verbs import asking, keeping, sessions
from everloop.store.sql.verbs.adding import add, lanes_of
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.settling import settle
from everloop.store.sql.verbs.statement import Statement, Verb
from everloop.store.sql.verbs.turning import turn as take_turn
from everloop.store.transactions import UserTransaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")
#: Seconds that a user's transaction waits for a key that another one, still open, has submitted a call with.
PATIENCE = 5.0
#: A verb that wants nothing but its surroundings.
Make = Callable[[Scope], Verb[T]]


#: The last word of a schema that is made by hand, and of one that is brought up to date.
_FIRST = "INSERT INTO ever_meta (name, value) VALUES ('schema', {}), ('identity', {})"
_LATER = "UPDATE ever_meta SET value = {} WHERE name = 'schema'"
#: Which releases may go on with it.
_OLDEST = "INSERT INTO ever_meta (name, value) VALUES ('{}', {})"


class _KeyIsBusy(StoreUnavailable):
    """Another transaction, still open, has submitted a call with the same key."""


class SqlStore(ABC):
    """The verbs on a database; what is the database's own is in the subclasses.

    Args:
        clock: Tells the store's time.
    """

    url: str
    dialect: str
    #: SQLAlchemy's names of the database.
    _dialects: tuple[str, ...]
    _folding: Folding
    #: What messages call it.
    _shown: str

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lanes: dict[Lane, int] = {}
        self._names: dict[int, Lane] = {}
        self._workers: set[int] = set()

    @abstractmethod
    def _runner(self) -> ConnectionThread[Any]:
        """Return the open runner of whatever writes."""

    @abstractmethod
    def _apart(self) -> ConnectionThread[Any]:
        """Return the runner of what may have to wait for a transaction beside it."""

    @abstractmethod
    def _reader(self) -> ConnectionThread[Any]:
        """Return the runner of what only reads: it waits for no writer."""

    @abstractmethod
    def _wake(self, scope: Scope) -> None:
        """After a commit of the store's own: wake who has something to look at."""

    @abstractmethod
    def _ring(self, scope: Scope) -> None:
        """The same after a commit of the user's, in whatever thread that was."""

    @abstractmethod
    def _enter(self, hand: Hand) -> None:
        """See that a user's connection is on this database, may write to it, and has a transaction open.

        Raises:
            UsageError: It is not so.
        """

    def _enter_with_keys(self, hand: Hand) -> None:  # noqa: B027 - most databases have nothing to see to
        """See that keys can be judged in this transaction.

        Raises:
            UsageError: They cannot.
        """

    @abstractmethod
    async def _learn_lanes(self, lanes: Collection[Lane]) -> None:
        """Number these lanes as far as that can be, before a transaction of the user's needs them."""

    def now(self) -> int:
        return self._clock.now()

    # -- the schema -------------------------------------------------------------------------------------

    @abstractmethod
    async def migrations(self) -> tuple[int, list[Migration]]:
        """Return the schema's number (0 without one) and the migrations that are missing; change nothing."""

    def script(self, missing: Sequence[Migration]) -> list[str]:
        """Return the statements that apply these migrations by hand: the schema's number is in them, too."""
        statements = [statement for each in missing for statement in split(each.script)]
        if missing:
            newest = missing[-1].number
            oldest = oldest_of(each for each in migrations(self.dialect) if each.number <= newest)
            statements.append(_OLDEST.format(under(newest), oldest))
            fresh = missing[0].number == 1
            last = _FIRST.format(newest, secrets.randbits(62)) if fresh else _LATER.format(newest)
            statements.append(last)
        return statements

    @abstractmethod
    async def migrate(self) -> None:
        """Apply the migrations that are missing, on a store that is not open.

        Raises:
            ConfigError: The user may not.
        """

    # -- sessions ---------------------------------------------------------------------------------------

    async def open_session(self, info: SessionInfo, lease: int) -> int:
        await self._number(info.lanes)
        session = await self._write(partial(sessions.open_session, info=info, lease=lease))
        if info.kind == "worker":
            self._workers.add(session)
        return session

    async def serve(self, session: int, info: SessionInfo) -> None:
        await self._number(info.lanes)
        await self._write(partial(sessions.serve, info=info), session)
        if info.kind == "worker":
            self._workers.add(session)

    async def renew(self, session: int, lease: int, gauges: Gauges | None = None) -> bool:
        return await self._write(partial(sessions.renew, lease=lease, gauges=gauges), session)

    async def close_session(self, session: int) -> None:
        await self._write(sessions.close_session, session)
        self._workers.discard(session)

    async def reap(self, *, overdue: bool = True, dead: Mapping[int, str] = NOBODY) -> int:
        if not (overdue or dead):
            return 0
        return await self._write(partial(sessions.reap, gone=dead, overdue=overdue))

    # -- the hot path -----------------------------------------------------------------------------------

    async def turn(self, session: int, turn: Turn) -> TurnAnswer:
        await self._number({*turn.lanes, *lanes_of(turn.adds)})
        make = partial(take_turn, request=turn)
        scope, answer = await self._send(make, session, durable=is_durable(turn))
        self._wake(scope)
        return answer

    async def add(self, session: int | None, calls: Sequence[NewCall]) -> list[Added]:
        await self._number(lanes_of(calls))
        return await self._write_apart(partial(add, calls=calls), session)

    async def wait(self, session: int, ids: Sequence[str]) -> list[str]:
        return await self._write_apart(partial(asking.wait, ids=ids), session)

    async def cancel(
        self, ids: Sequence[str], message: str = "", parents: Sequence[Parent | None] = ()
    ) -> list[Cancelled]:
        return await self._write_apart(partial(asking.cancel, ids=ids, message=message, parents=parents))

    # -- keeping ----------------------------------------------------------------------------------------

    async def prune(self, request: Pruning) -> Pruned:
        if request.keeps_all:
            return Pruned()
        if request.after is None:
            if not await self._write_apart(partial(keeping.begin_sweep, request=request)):
                return Pruned()
            asked = request
            request = await self._read(lambda _: keeping.find_bound(asked))
        going_on = request
        page = await self._read(partial(keeping.look, request=going_on))
        if page.empty:
            return Pruned(next=page.next)
        return await self._write_apart(partial(keeping.drop, request=going_on, page=page))

    async def log(self, chunks: Sequence[LogChunk]) -> None:
        if chunks:
            begin = partial(self._begin, partial(keeping.log, chunks=chunks), None)
            await self._apart().run(begin, durable=False)

    # -- in a transaction of the user's -------------------------------------------------------------------

    async def settle_on(self, connection: AsyncConnection, outcome: Outcome) -> Callable[[], None] | None:
        from everloop.store.sql.runners.sqlalchemy import drive_on

        # Nobody is told in an answer: the user's transaction commits later, and may not.
        scope = self._scope(None)
        deadline = time.monotonic() + PATIENCE
        while True:
            (settled,) = await drive_on(connection, settle(scope, [outcome]), self._folding)
            if settled is not None:
                break
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"another transaction that is still open holds the call {outcome.id}")
            await asyncio.sleep(0.01)  # somebody begins to wait for it, or adds a child: that is short
        return partial(self._ring, scope) if settled else None

    async def add_on(
        self, connection: object, calls: Sequence[NewCall]
    ) -> tuple[list[Added], UserTransaction]:
        borrowed = self._borrow(connection)
        await self._learn_lanes(lanes_of(calls))
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer: tuple[list[Added], UserTransaction] = await borrowed.run(
                    partial(self._add_by_hand, calls)
                )
                return answer
            except _KeyIsBusy:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    def _add_by_hand(self, calls: Sequence[NewCall], hand: Hand) -> tuple[list[Added], UserTransaction]:
        self._enter(hand)
        if any(call.key for call in calls):
            self._enter_with_keys(hand)
        scope = self._scope(None)
        scope.borrowed = True
        added = drive_whole(hand, self._add_with_lanes(scope, calls), self._folding)
        transaction = hand.transaction()
        transaction.on_end(lambda committed: self._ring(scope) if committed else None)
        return added, transaction

    def _borrow(self, connection: object) -> Borrowed:
        borrowed = borrow(connection)
        if borrowed.dialect not in self._dialects:
            raise UsageError(
                f"`connection` is on a {borrowed.dialect} database, and the calls of this app are on "
                f"{self._shown!r}: a transaction reaches one database. Take the connection from "
                "app.database(), or submit after the commit"
            )
        return borrowed

    def _add_with_lanes(self, scope: Scope, calls: Sequence[NewCall]) -> Verb[list[Added]]:
        lanes = lanes_of(calls)
        if any(lane not in self._lanes for lane in lanes):
            # Here, for this transaction may keep the store itself from writing. Not remembered: when it is
            # rolled back, their numbers may become those of others.
            scope.lanes = yield from _number(lanes)
        added = yield from add(scope, calls)
        for call, answer in zip(calls, added, strict=True):
            if answer.status == "busy":
                key = f" ({call.key.value!r})" if call.key else ""
                raise _KeyIsBusy(
                    f"{call.lane.fn}() was not submitted: a transaction has submitted a call with the same "
                    f"key{key} that this one cannot see: it has been open for {PATIENCE:g} s, or was "
                    "committed since this one began. Commit both, and submit in one that begins after that"
                )
        return added

    # -- reads --------------------------------------------------------------------------------------------

    async def get(self, ids: Sequence[str]) -> list[Snapshot | None]:
        return await self._read(lambda _: asking.get(ids))

    async def runs(self, ids: Sequence[str]) -> list[list[RunRecord]]:
        return await self._read(lambda _: asking.runs(ids))

    async def logs(self, id: str, after: tuple[int, int] = (0, 0), most: int = 1_000) -> list[LogChunk]:
        return await self._read(lambda _: keeping.logs(id, after, most))

    async def find(self, filter: CallFilter) -> list[Snapshot]:
        return await self._read(lambda _: asking.find(filter))

    async def counts(self, app: str | None = None, queue: str | None = None) -> dict[str, int]:
        return await self._read(lambda _: asking.counts(app, queue))

    async def serving(self, app: str) -> list[tuple[str, str]]:
        return await self._read(partial(asking.serving, app=app))

    async def backlog(self, app: str | None = None) -> list[Backlog]:
        return await self._read(lambda _: asking.backlog(app))

    async def sessions(self, app: str | None = None) -> list[SessionLook]:
        return await self._read(lambda _: asking.sessions(app))

    async def swept(self, app: str) -> int | None:
        return await self._read(lambda _: asking.swept(app))

    @abstractmethod
    async def vitals(self) -> Vitals:
        """Return what the database tells of itself."""

    # -- transactions ---------------------------------------------------------------------------------------

    def _scope(self, session: int | None) -> Scope:
        return Scope(self._clock, session, self._lanes, self._names)

    def _begin(self, make: Make[T], session: int | None) -> tuple[Scope, Verb[T]]:
        scope = self._scope(session)
        return scope, make(scope)

    def _send(self, make: Make[T], session: int | None, *, durable: bool) -> asyncio.Future[tuple[Scope, T]]:
        return self._runner().run(partial(self._begin, make, session), durable=durable)

    async def _write(self, make: Make[T], session: int | None = None) -> T:
        scope, answer = await self._send(make, session, durable=True)
        self._wake(scope)
        return answer

    async def _write_apart(self, make: Make[T], session: int | None = None) -> T:
        """Write beside the turns, which wait for none of it."""
        return await self._write_on(self._apart(), make, session)

    async def _write_on(self, runner: ConnectionThread[Any], make: Make[T], session: int | None) -> T:
        scope, answer = await runner.run(partial(self._begin, make, session))
        self._wake(scope)
        return answer

    async def _read(self, make: Make[T]) -> T:
        _, answer = await self._reader().run(partial(self._begin, make, None), write=False)
        return answer

    async def _number(self, lanes: Collection[Lane]) -> None:
        """Number the lanes; new ones get theirs in a transaction of their own, once."""
        if any(lane not in self._lanes for lane in lanes):
            _, known = await self._send(lambda _: _number(lanes), None, durable=True)
            self._remember(known)

    def _remember(self, known: dict[Lane, int]) -> None:
        self._lanes.update(known)
        self._names.update({number: lane for lane, number in known.items()})


def is_durable(turn: Turn) -> bool:
    """Tell whether a turn waits for the disk: an inbox dies with its session, so taking it need not."""
    return bool(turn.lanes or turn.adds or turn.outcomes or turn.progress or turn.holding is not None)


def _number(lanes: Collection[Lane]) -> Verb[dict[Lane, int]]:
    yield Statement("lane_add", {"lanes": [list(lane) for lane in lanes]})
    return (yield from known_lanes())


def known_lanes() -> Verb[dict[Lane, int]]:
    rows = yield Statement("lane_all", {})
    return {Lane(app, queue, fn): number for number, app, queue, fn in rows}
