"""The matrix: each verb, by what it is asked to do, and the state that it meets.

A request is several cells at once: a turn adds, settles, leases, and takes what there is for its session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from everloop._core.calls import State
from everloop._core.policy import SUSPECT
from everloop._core.records import NewCall, Outcome, SessionInfo, Turn
from everloop.store.memory_rows import Row, Tables
from tests.sim.faults import Cell

_READ: dict[State, str] = {
    State.WAITING: "waiting",
    State.SCHEDULED: "scheduled",
    State.READY: "ready",
    State.LEASED: "leased",
    State.SUCCEEDED: "ended",
    State.FAILED: "ended",
    State.CANCELLED: "ended",
    State.EXPIRED: "ended",
}


class Cells:
    """Tells which cells a request is, from what the store holds."""

    def __init__(self, tables: Tables, now: Any) -> None:
        self._tables = tables
        self._now = now
        self._readers: dict[str, Callable[..., Iterable[Cell]]] = {
            verb: getattr(self, f"_{verb}")
            for verb in (
                *("open", "tend", "renew", "serve", "close_session", "reap", "serving"),
                *("turn", "add", "cancel", "wait", "get"),
            )
        }

    def of(self, verb: str, args: Sequence[Any], *, first: bool) -> list[Cell]:
        """Return the cells of a request of a process that opens its first session, or has had one."""
        if verb == "open_session":
            return [("open session", "first" if first else "again")]
        found: dict[Cell, None] = dict.fromkeys(self._readers[verb](*args))
        return list(found)

    # -- sessions -------------------------------------------------------------------------------------------

    def _open(self) -> Iterable[Cell]:
        return (("open", "-"),)

    def _tend(self) -> Iterable[Cell]:
        return (("tend", "-"),)

    def _session(self, number: int) -> str:
        there = self._tables.sessions.get(number)
        if there is None:
            return "reaped"
        return "alive" if there.until > self._now() else "overdue"

    def _renew(self, session: int, _lease: int, _gauges: object) -> Iterable[Cell]:
        return (("renew", self._session(session)),)

    def _serve(self, session: int, info: SessionInfo) -> Iterator[Cell]:
        yield f"serve ({'begin' if info.kind == 'worker' else 'end'})", self._session(session)

    def _close_session(self, session: int) -> Iterator[Cell]:
        state = self._session(session)
        yield "close session", "holding" if self._tables.held(session) else state

    def _reap(self, overdue: bool, _dead: object) -> Iterator[Cell]:
        if not overdue:
            yield "reap", "may not judge"
            return
        now = self._now()
        dead = [number for number, there in self._tables.sessions.items() if there.until <= now]
        if not dead:
            yield "reap", "nobody"
        for session in dead:
            rows = self._tables.held(session)
            if not rows:
                yield "reap", "a session without leases"
            for row in rows:
                if row.cancel_asked is not None:
                    yield "reap", "cancel asked"
                elif row.crashes >= row.new.crash_limit:
                    yield "reap", "last crash"
                else:
                    yield "reap", "leased"

    def _serving(self, _app: str) -> Iterable[Cell]:
        return (("serving", "-"),)

    # -- calls ----------------------------------------------------------------------------------------------

    def _turn(self, session: int, turn: Turn) -> Iterator[Cell]:
        if session not in self._tables.sessions:
            yield "turn", "reaped"
        for call in turn.adds:
            yield self._adding(call)
        for outcome in turn.outcomes:
            yield f"settle {outcome.event}", self._settled(outcome)
        if turn.progress:
            yield "progress", "-"
        if turn.holding is not None:
            more = {row.id for row in self._tables.held(session)} - set(turn.holding)
            more -= {outcome.id for outcome in turn.outcomes}
            yield "holding", "more" if more else "nothing more"
        if turn.lanes:
            yield from self._leasing(turn)
        there = self._tables.sessions.get(session)
        if there is not None and there.ended:
            yield "inbox", "ends"
        if there is not None and there.cancels:
            yield "inbox", "cancels"

    def _leasing(self, turn: Turn) -> Iterator[Cell]:
        now = self._now()
        live = self._tables.live.values()
        if any(row.is_late(now) for row in live):
            yield "expire", "late"
        lanes = set(turn.lanes)
        ready = [
            row
            for row in live
            if row.new.lane in lanes
            and (row.state is State.READY or (row.state is State.SCHEDULED and row.due <= now))
        ]
        if turn.room <= 0:
            yield "lease", "no room"
        elif not ready:
            yield "lease", "nothing ready"
        else:
            yield "lease", "ready"
            if any(row.crashes >= SUSPECT for row in ready):
                yield "lease", "suspect"
            if any(row.fence for row in ready):
                yield "lease", "again"

    def _settled(self, outcome: Outcome) -> str:
        row = self._tables.rows[outcome.id]
        if row.holds(outcome.fence):
            return "leased" if row.cancel_asked is None else "cancel asked"
        return "ended" if row.state.final else "lost"

    def _adding(self, call: NewCall) -> Cell:
        kind = "add" if call.parent is None else "add child"
        if call.key is not None:
            kind = f"add keyed ({call.key.on_conflict})"
        elif call.callbacks and call.parent is None:
            kind = "add with callback"
        rows = self._tables.rows
        if call.parent is not None and not rows[call.parent.id].holds(call.parent.fence):
            return kind, "parent lost"
        if call.id in rows:
            return kind, "there"
        if call.parent is not None and call.child_key is not None:
            child = self._tables.child(call.parent.id, call.child_key)
            if child is not None:
                if child.state is State.SUCCEEDED:
                    return kind, "earlier child succeeded"
                return kind, "earlier child lost" if child.state.final else "earlier child lives"
        if call.key is not None:
            met = self._tables.with_key(call.lane, call.key.value)
            if any(row.meets(call.key) for row in met):
                return kind, "key held"
        return kind, "absent"

    def _add(self, _session: int, calls: Sequence[NewCall]) -> Iterator[Cell]:
        for call in calls:
            yield self._adding(call)

    def _states(self, verb: str, ids: Sequence[str]) -> Iterator[Cell]:
        for id_ in ids:
            row: Row | None = self._tables.rows.get(id_)
            yield verb, "unknown" if row is None else _READ[row.state]

    def _cancel(self, ids: Sequence[str], _message: str, _parents: object) -> Iterator[Cell]:
        return self._states("cancel", ids)

    def _wait(self, _session: int, ids: Sequence[str]) -> Iterator[Cell]:
        return self._states("wait", ids)

    def _get(self, ids: Sequence[str]) -> Iterator[Cell]:
        return self._states("get", ids) if ids else iter([("get", "nothing")])
