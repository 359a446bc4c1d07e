"""Ends: how a call becomes final, and all that hangs on it.

Every way to a final state goes through `end_calls`: the outcome is written, whoever waits is told, the
callbacks start, and owned children that nobody asks for any more are cancelled, in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from everloop._core.calls import Event, State, step
from everloop._core.codec import error_record
from everloop._core.errors import TaskExpired
from everloop._core.records import Ended
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement, Verb, text

#: `watched` bits.
CALLBACKS, WAITS = 1, 2
#: Above every fence: no child was asked for.
NO_FENCE = 1 << 62


@dataclass(slots=True)
class Row:
    """The columns of a call that decide about its next state."""

    seq: int
    id: str
    state: State
    fence: int
    attempt: int
    crashes: int
    due: int
    waiter: int | None
    watched: int
    cancel_asked: str | None
    session: int | None

    @classmethod
    def read(cls, columns: Sequence[Any]) -> Row:
        seq, id_, state, *rest = columns
        return cls(seq, id_, State(state), *rest)


@dataclass(slots=True)
class Move:
    """A row's next state; for a final one, its outcome."""

    row: Row
    state: State
    due: int
    attempt: int
    crashes: int
    growth: int = 0
    value: bytes | None = None
    error: bytes | None = None
    by_body: bool = False


def stop(row: Row, event: Event, error: bytes | None = None) -> Move:
    """Return the move that ends `row` from outside its body: the fence grows."""
    return Move(row, step(row.state, event), row.due, row.attempt, row.crashes, growth=1, error=error)


def apply_moves(scope: Scope, moves: list[Move]) -> Verb[list[Ended]]:
    """Write the moves; return the ends that the asking session itself waits for."""
    if not moves:
        return []
    yield Statement(
        "move",
        {"rows": [[m.row.seq, m.state, m.due, m.attempt, m.crashes, m.growth] for m in moves]},
    )
    ends: list[Move] = []
    for m in moves:
        if m.state.final:
            ends.append(m)
        elif m.state is State.READY:
            scope.ready = True
    return (yield from end_calls(scope, ends)) if ends else []


def end_calls(scope: Scope, ends: list[Move]) -> Verb[list[Ended]]:
    """Write the outcomes of calls that have just become final, and do what hangs on them."""
    yield Statement(
        "end_outcomes",
        {"rows": [[m.row.seq, m.row.session, text(m.value), text(m.error)] for m in ends], "now": scope.now},
    )
    told = yield from _tell(scope, ends)
    watched = [m.row.seq for m in ends if m.row.watched & CALLBACKS]
    if watched:
        woken = yield Statement("end_wake", {"seqs": watched, "now": scope.now})
        scope.ready = scope.ready or woken > 0
    # A first run has asked for every child it has: only a later run, or an end without a body, can
    # leave children that nobody asks for.
    orphaned = [
        [m.row.seq, m.row.fence if m.by_body else NO_FENCE] for m in ends if not m.by_body or m.row.fence > 1
    ]
    if orphaned:
        rows = yield Statement("end_children", {"rows": orphaned})
        if rows:
            told += yield from cancel_rows(scope, [Row.read(r) for r in rows], "its parent has ended")
    return told


def _tell(scope: Scope, ends: list[Move]) -> Verb[list[Ended]]:
    """Tell every session that waits; the asking one gets its ends in the answer instead."""
    told: list[Ended] = []
    others: list[list[int]] = []
    for m in ends:
        waiter = m.row.waiter
        if waiter is None:
            continue
        if waiter == scope.session:
            told.append(Ended(m.row.id, m.state, m.value, m.error, m.attempt))
        else:
            others.append([waiter, m.row.seq])
            scope.rung.add(waiter)
    if others:
        yield Statement("end_tell", {"rows": others})
    waited = [m.row.seq for m in ends if m.row.watched & WAITS]
    if waited:
        rows = yield Statement("end_waits", {"seqs": waited})
        scope.rung.update(session for (session,) in rows)
        yield Statement("end_tell_waits", {"seqs": waited})
        yield Statement("end_drop_waits", {"seqs": waited})
    return told


def cancel_rows(scope: Scope, rows: list[Row], message: str) -> Verb[list[Ended]]:
    """Cancel live calls: ask the worker of a leased one, end the others here."""
    leased = [r for r in rows if r.state is State.LEASED and r.cancel_asked is None]
    if leased:
        seqs = [r.seq for r in leased]
        yield Statement("cancel_ask", {"seqs": seqs, "message": message})
        yield Statement("cancel_tell", {"seqs": seqs})
        scope.rung.update(r.session for r in leased if r.session is not None)
    idle = [stop(r, Event.CANCEL) for r in rows if r.state is not State.LEASED and not r.state.final]
    return (yield from apply_moves(scope, idle))


def expire_calls(scope: Scope) -> Verb[list[Ended]]:
    """End the calls that were not started in time."""
    rows = yield Statement("expire_match", {"now": scope.now})
    if not rows:
        return []
    error = error_record(TaskExpired, "the call was not started before it expired")
    return (yield from apply_moves(scope, [stop(Row.read(r), Event.EXPIRE, error) for r in rows]))
