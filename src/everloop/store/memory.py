"""The memory store: the reference that every other store is compared with, and a test double.

Everything is in dicts and gone with the process. It is the store protocol without a database: what a
verb means is easiest to read here. No method awaits anything between its first line and its last, so
each verb is atomic on one event loop; a lock makes it so among threads (a session is renewed from one of
its own).

Judged together, carried out after: a verb first moves all the calls that it names, and only then
follows what hangs on their ends (who is told, which callbacks start, which children are cancelled).
The answer then does not depend on the order in which a request lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import RLock

import msgspec

from everloop._core import forks
from everloop._core.calls import Event, State, step
from everloop._core.clock import Clock, SystemClock
from everloop._core.codec import error_record
from everloop._core.crashes import Death, of_somebody
from everloop._core.errors import TaskExpired
from everloop._core.looks import Gauges
from everloop._core.policy import SUSPECT
from everloop._core.records import (
    Added,
    Cancel,
    Cancelled,
    Ended,
    Leased,
    NewCall,
    Outcome,
    Parent,
    Progress,
    SessionInfo,
    Turn,
    TurnAnswer,
)
from everloop.store.memory_bells import Bells
from everloop.store.memory_keeping import Keeping
from everloop.store.memory_lock import atomic
from everloop.store.memory_reading import Reading
from everloop.store.memory_rows import NO_FENCE, Row, Session, Tables
from everloop.store.no_transactions import NoTransactions
from everloop.store.protocol import NOBODY

#: Ends that one answer holds at most.
INBOX = 2_000

#: How a lease can end.
SETTLING = (Event.SUCCEED, Event.FAIL, Event.RETRY, Event.CANCEL, Event.RELEASE, Event.REAP)

#: An ended call, and the fence below which a child of it was not asked for in its last run.
End = tuple[Row, int]

_SYSTEM = SystemClock()
_named: dict[str, tuple[Tables, Bells]] = {}
_lock = forks.waiting_for(RLock())  # one for all: several stores may share their tables by name


class MemoryStore(Reading, Keeping, NoTransactions):
    """A store in this process's memory.

    Args:
        clock: Judges leases and due times; a `ManualClock` in tests.
        url: "memory://" is private to this object; every "memory://NAME" in a process is one store.
    """

    def __init__(self, clock: Clock = _SYSTEM, url: str = "memory://") -> None:
        self.url = url
        self.now = clock.now
        fresh = Tables(), Bells()
        name = url.removeprefix("memory://")
        self.lock = _lock
        self._tables, self._bells = _named.setdefault(name, fresh) if name else fresh
        self._rung: set[int] = set()  # sessions whose inbox has grown in this verb
        self._ready = False  # whether calls were queued in this verb

    def twin(self) -> MemoryStore:
        return self

    async def tend(self) -> None:
        """Do nothing: nothing grows but what is stored."""

    async def open(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def close(self) -> None:
        """Do nothing: what is stored stays, for whoever opens the same name again."""

    # -- sessions ---------------------------------------------------------------------------------

    @atomic
    async def open_session(self, info: SessionInfo, lease: int) -> int:
        tables = self._tables
        tables.last_session += 1
        tables.sessions[tables.last_session] = Session(info, self.now() + lease, self.now())
        return tables.last_session

    @atomic
    async def renew(self, session: int, lease: int, gauges: Gauges | None = None) -> bool:
        there = self._tables.sessions.get(session)
        if there is None:
            return False
        there.until, there.gauges = self.now() + lease, gauges
        return True

    @atomic
    async def serve(self, session: int, info: SessionInfo) -> None:
        there = self._tables.sessions.get(session)
        if there is not None:
            there.info = info

    @atomic
    async def close_session(self, session: int) -> None:
        self._release(self._tables.held(session), self.now())
        self._tables.sessions.pop(session, None)
        self._ring()

    def _release(self, rows: Iterable[Row], now: int) -> None:
        ends: list[End] = []
        for row in rows:
            if row.cancel_asked is not None:
                ends.append(self._stop(row, Event.CANCEL, now))
            else:
                self._requeue(row, State.READY, row.due, now)
        self._follow(ends, now)

    @atomic
    async def reap(self, *, overdue: bool = True, dead: Mapping[int, str] = NOBODY) -> int:
        now = self.now()
        sessions = self._tables.sessions
        deaths = {
            number: Death(there.info.host, there.info.pid, dead.get(number, ""))
            for number, there in sessions.items()
            if number in dead or (overdue and there.until <= now)
        }
        ends: list[End] = []
        for session, death in deaths.items():
            for row in self._tables.held(session):
                ends += self._crash(row, now, death.record(row.crashes + 1, row.new.crash_limit))
        for session in deaths:
            del sessions[session]
        self._follow(ends, now)
        self._ring()
        return len(deaths)

    def _crash(self, row: Row, now: int, last_words: bytes | None) -> list[End]:
        row.crashes += 1
        if row.cancel_asked is not None:
            return [self._stop(row, Event.CANCEL, now)]
        if row.crashes > row.new.crash_limit:
            last_words = last_words or of_somebody(row.crashes, row.new.crash_limit)
            return [self._stop(row, Event.FAIL, now, last_words)]
        self._requeue(row, step(row.state, Event.REAP), row.due, now, last_words)
        return []

    # -- the hot path -----------------------------------------------------------------------------

    @atomic
    async def turn(self, session: int, turn: Turn) -> TurnAnswer:
        now = self.now()
        for progress in turn.progress:
            self._note(progress)
        added = self._add(session, turn.adds, now)
        settled = self._settle(turn.outcomes, now)
        if turn.holding is not None:
            self._release([row for row in self._tables.held(session) if row.new.id not in turn.holding], now)
        leased: list[Leased] = []
        next_due: int | None = None
        if turn.lanes:
            self._expire(now)
            next_due = self._promote(now)
            leased = self._lease(session, turn, now)
        ended, more = self._take_ends(session)
        cancels = self._take_cancels(session)
        self._ring(but=session)
        return TurnAnswer(
            settled=settled,
            added=added,
            leased=leased,
            ended=ended,
            cancels=cancels,
            next_due=next_due,
            more=more,
        )

    @atomic
    async def add(self, session: int | None, calls: Sequence[NewCall]) -> list[Added]:
        answers = self._add(session, calls, self.now())
        self._ring()
        return answers

    @atomic
    async def wait(self, session: int, ids: Sequence[str]) -> list[str]:
        unknown: list[str] = []
        for id in ids:
            row = self._tables.rows.get(id)
            if row is None:
                unknown.append(id)
            else:
                self._tell_of(row, session)
        self._ring()
        return unknown

    @atomic
    async def cancel(
        self, ids: Sequence[str], message: str = "", parents: Sequence[Parent | None] = ()
    ) -> list[Cancelled]:
        now, rows = self.now(), self._tables.rows
        spared: dict[int, Cancelled] = {}
        for n, (id, parent) in enumerate(zip(ids, parents or [None] * len(ids), strict=True)):
            if id not in rows:
                spared[n] = Cancelled(id, None, asked=False)
            elif parent is not None and not self._tables.has_fence(parent):
                spared[n] = Cancelled(id, rows[id].state, asked=False, lost=True)
        stopped = [rows[id] for n, id in enumerate(ids) if n not in spared]
        self._follow(self._cancel(stopped, message, now), now)
        self._ring()
        return [
            spared.get(n) or Cancelled(id, rows[id].state, rows[id].state is State.LEASED)
            for n, id in enumerate(ids)
        ]

    # -- settling ---------------------------------------------------------------------------------

    def _settle(self, outcomes: Sequence[Outcome], now: int) -> list[bool | None]:
        for outcome in outcomes:
            if outcome.event not in SETTLING:
                raise ValueError(f"a lease ends by {', '.join(SETTLING)}, not by {outcome.event!r}")
        settled: list[bool | None] = []
        ends: list[End] = []
        for outcome in outcomes:
            row = self._tables.rows.get(outcome.id)
            current = row is not None and row.holds(outcome.fence)
            settled.append(current)
            if row is not None and current:
                ends += self._settle_one(row, outcome, now)
        self._follow(ends, now)
        return settled

    def _settle_one(self, row: Row, outcome: Outcome, now: int) -> list[End]:
        event = outcome.event
        if event is Event.REAP:
            return self._crash(row, now, outcome.error)
        row.attempt += event is not Event.RELEASE
        if event is Event.RELEASE and row.cancel_asked is not None:
            return [self._stop(row, Event.CANCEL, now, outcome.error)]
        if event is Event.RETRY and row.cancel_asked is not None:
            self._finish(row, step(row.state, Event.CANCEL), now, None, outcome.error, by_body=True)
            return [(row, row.fence)]
        if event in (Event.RETRY, Event.RELEASE):
            state = step(row.state, event)
            if outcome.delay:
                self._requeue(row, state, now + outcome.delay, now, outcome.error)
            else:
                self._requeue(row, step(state, Event.DUE), row.due, now, outcome.error)
            return []
        self._finish(row, step(row.state, event), now, outcome.value, outcome.error, by_body=True)
        return [(row, row.fence)]

    def _requeue(self, row: Row, state: State, due: int, now: int, error: bytes | None = None) -> None:
        """Put a leased call back; what its last holder writes from now on is void."""
        self._note_run(row, now, error)
        row.state, row.due, row.session = state, due, None
        row.fence += 1
        self._ready = True

    def _note(self, progress: Progress) -> None:
        row = self._tables.rows.get(progress.id)
        if row is not None and row.holds(progress.fence):
            row.progress = progress.done, progress.total, progress.note

    # -- ending -----------------------------------------------------------------------------------

    def _finish(
        self,
        row: Row,
        state: State,
        now: int,
        value: bytes | None = None,
        error: bytes | None = None,
        *,
        by_body: bool = False,
    ) -> None:
        if row.state is State.LEASED:
            self._note_run(row, now, error, state if by_body else None)
        row.state, row.ended, row.value, row.error = state, now, value, error
        del self._tables.live[row.id]

    def _stop(self, row: Row, event: Event, now: int, error: bytes | None = None) -> End:
        """End a call from outside its body: what a body of it still writes is void."""
        self._finish(row, step(row.state, event), now, error=error)
        row.fence += 1
        return row, NO_FENCE

    def _follow(self, ends: list[End], now: int) -> None:
        """Tell who waits, start callbacks, and cancel the children that nobody asks for any more."""
        while ends:
            for row, _ in ends:
                self._rung.update(self._tables.tell(row, row.waiters))
                row.waiters.clear()
                for follower in self._tables.followers.get(row.id, ()):
                    if follower.state is State.WAITING:
                        ready = step(follower.state, Event.WAKE)
                        follower.state = ready if follower.due <= now else State.SCHEDULED
                        self._ready = True
            orphans = [child for row, below in ends for child in self._tables.orphans(row, below)]
            ends = self._cancel(orphans, "its parent has ended", now)

    def _cancel(self, rows: Iterable[Row], message: str, now: int) -> list[End]:
        """Ask the workers of leased calls, end the others here and return them."""
        ends: list[End] = []
        for row in rows:
            if row.state is State.LEASED:
                if row.cancel_asked is None and row.session is not None:
                    row.cancel_asked = message
                    self._tables.sessions[row.session].cancels[row.id] = row.fence
                    self._rung.add(row.session)
            elif not row.state.final:
                ends.append(self._stop(row, Event.CANCEL, now))
        return ends

    # -- adding -----------------------------------------------------------------------------------

    def _add(self, session: int | None, calls: Sequence[NewCall], now: int) -> list[Added]:
        replaced: list[Row] = []
        answers = [self._add_one(session, call, now, replaced) for call in calls]
        self._follow(self._cancel(replaced, "another call with its key replaced it", now), now)
        return answers

    def _add_one(self, session: int | None, call: NewCall, now: int, replaced: list[Row]) -> Added:
        rows = self._tables.rows
        parent = rows.get(call.parent.id) if call.parent else None
        if call.parent and not (parent and parent.holds(call.parent.fence)):
            return Added(call.id, "lost")
        existing = rows.get(call.id)
        if existing is not None and not existing.equals(call):
            return Added(call.id, "refused", "id")
        if existing is None and call.after is not None and call.after not in rows:
            return Added(call.id, "refused", "after")
        child = None if existing else self._reusable(call)
        existing = existing or child
        if existing is None and call.key is not None:
            met = [row for row in self._tables.with_key(call.lane, call.key.value) if row.meets(call.key)]
            if met and call.key.on_conflict == "raise":
                return Added(met[-1].id, "refused", "key")
            if met and call.key.on_conflict == "join":
                existing = met[-1]
            else:
                replaced += met
        row = existing or self._insert(call, parent, now)
        if parent is not None and row.parent == parent.id:
            row.asked = parent.fence
        if call.told and session is not None:
            self._tell_of(row, session)
        for callback in call.callbacks if child is None else ():  # those of a child came with it
            follower = msgspec.structs.replace(callback, after=row.id, parent=None)
            self._add_one(session, follower, now, replaced)
        return Added(row.id, "exists" if existing else "added")

    def _reusable(self, call: NewCall) -> Row | None:
        """Return the child of an earlier run that this call stands for."""
        if call.parent is None or call.child_key is None:
            return None
        child = self._tables.child(call.parent.id, call.child_key)
        if child is None or child.state is State.SUCCEEDED:
            return child
        # One that was asked to cancel lives, but its end is no answer to who asks for it only now.
        return None if child.state.final or child.cancel_asked is not None else child

    def _insert(self, call: NewCall, parent: Row | None, now: int) -> Row:
        self._tables.last_seq = seq = self._tables.last_seq + 1
        due = call.due or now + call.delay
        state = State.SCHEDULED if due > now else State.READY
        if call.after is not None and not self._tables.rows[call.after].state.final:
            state = State.WAITING
        inherited = parent.priority if parent else 0
        row = Row(
            new=call,
            seq=seq,
            state=state,
            priority=inherited if call.priority is None else call.priority,
            place=parent.place if parent else due,
            root=parent.root if parent else seq,
            depth=parent.depth + 1 if parent else 0,
            due=due,
            created=now,
            expires=None if call.expires is None else now + call.expires,
            asked=0,
        )
        self._tables.insert(row)
        self._ready = self._ready or state is not State.WAITING
        return row

    # -- leasing ----------------------------------------------------------------------------------

    def _expire(self, now: int) -> None:
        late = [row for row in self._tables.live.values() if row.is_late(now)]
        error = error_record(TaskExpired, "the call was not started before it expired")
        self._follow([self._stop(row, Event.EXPIRE, now, error) for row in late], now)

    def _promote(self, now: int) -> int | None:
        """Make the scheduled calls ready whose time has come; return when the next one is due."""
        scheduled = [row for row in self._tables.live.values() if row.state is State.SCHEDULED]
        for row in scheduled:
            if row.due <= now:
                row.state = step(row.state, Event.DUE)
        return min((row.due for row in scheduled if row.due > now), default=None)

    def _lease(self, session: int, turn: Turn, now: int) -> list[Leased]:
        if session not in self._tables.sessions or turn.room <= 0:
            return []  # what a session that was reaped would take, nobody could ever reap again
        lanes = set(turn.lanes)
        fit = [
            row for row in self._tables.live.values() if row.state is State.READY and row.new.lane in lanes
        ]
        fit = sorted((row for row in fit if turn.roots or row.depth), key=lambda row: row.order)
        suspects = [row for row in fit if row.crashes >= SUSPECT]
        left_out = suspects[int(turn.suspects) :]
        taken = [row for row in fit if row not in left_out][: turn.room]
        for row in taken:
            row.state, row.session, row.started = step(row.state, Event.LEASE), session, now
            row.fence += 1
            row.before = row.attempt, row.crashes
        return [row.leased() for row in taken]

    # -- telling ----------------------------------------------------------------------------------

    def _tell_of(self, row: Row, session: int) -> None:
        """Tell `session` of the end of `row`: now, if it has ended."""
        if row.state.final:
            self._rung.update(self._tables.tell(row, [session]))
        else:
            row.waiters.add(session)

    def _take_ends(self, session: int) -> tuple[list[Ended], bool]:
        there = self._tables.sessions.get(session)
        if there is None:
            return [], False
        taken = list(there.ended)[:INBOX]
        for id in taken:
            del there.ended[id]
        return [self._tables.rows[id].told() for id in taken], bool(there.ended)

    def _take_cancels(self, session: int) -> list[Cancel]:
        """Take what was asked; a lease that has ended meanwhile is not worth telling of."""
        there = self._tables.sessions.get(session)
        if there is None:
            return []
        asked = [(self._tables.rows[id], fence) for id, fence in there.cancels.items()]
        there.cancels.clear()
        return [Cancel(row.id, fence, row.cancel_asked or "") for row, fence in asked if row.holds(fence)]

    def _ring(self, but: int | None = None) -> None:
        """Wake who was told something, and the workers if calls were queued."""
        if self._ready:
            sessions = self._tables.sessions.items()
            self._rung.update(number for number, there in sessions if there.info.kind == "worker")
        self._bells.ring(self._rung - {but})
        self._rung.clear()
        self._ready = False

    # -- hints ------------------------------------------------------------------------------------

    def listen(self, session: int, wake: Callable[[], None]) -> Callable[[], None]:
        return self._bells.listen(session, wake)
