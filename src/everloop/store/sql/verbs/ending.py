"""Ends: how a call becomes final, and all that hangs on it.

Every way to a final state goes through `apply_moves`: the outcome is written, whoever waits is told, the
callbacks start, and owned children that nobody asks for any more are cancelled, in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from everloop._core.calls import Event, State, step
from everloop._core.codec import error_record
from everloop._core.crashes import of_somebody
from everloop._core.errors import TaskExpired
from everloop._core.records import Ended
from everloop._core.runs import RunKind, slot
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
    """A row's next state; for a final one, its outcome; `error` is also that of a run that is no outcome."""

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


def crash(row: Row, crash_limit: int, last_words: bytes | None) -> Move:
    """Return the move of a call that who ran it has died with; `last_words` is the record of how."""
    crashes = row.crashes + 1
    if row.cancel_asked is not None:
        move = stop(row, Event.CANCEL)
    elif crashes > crash_limit:
        move = stop(row, Event.FAIL, last_words or of_somebody(crashes, crash_limit))
    else:
        move = Move(
            row, step(State.LEASED, Event.REAP), row.due, row.attempt, crashes, growth=1, error=last_words
        )
    move.crashes = crashes
    return move


def apply_moves(scope: Scope, moves: list[Move]) -> Verb[None]:
    """Write the moves, and what hangs on those that are ends."""
    # A loop, not a recursion: a family of calls may be thousands of generations deep.
    while moves:
        yield Statement(
            "move",
            {"rows": [[m.row.seq, m.state, m.due, m.attempt, m.crashes, m.growth] for m in moves]},
        )
        runs = [_run(m) for m in moves if m.row.state is State.LEASED and not m.by_body]
        if runs:
            yield Statement("run_put", {"rows": runs, "now": scope.now})
        states = {m.state for m in moves}
        scope.ready = scope.ready or State.READY in states
        scope.back = scope.back or State.READY in states
        was = {m.row.state for m in moves}
        scope.scheduled = scope.scheduled or State.SCHEDULED in states or State.SCHEDULED in was
        scope.returned = scope.returned or State.READY in states or State.SCHEDULED in states
        ends = [m for m in moves if m.state.final]
        moves = (yield from _end_calls(scope, ends)) if ends else []


def _run(move: Move) -> list[Any]:
    """Return what is kept of a lease that has ended without being the call's outcome."""
    row = move.row
    kind: RunKind = "released"
    if move.crashes > row.crashes:
        kind = "crashed"
    elif move.attempt > row.attempt:
        kind = "failed"
    place = slot(kind, row.fence, row.attempt, row.crashes)
    return [row.seq, place, row.fence, row.attempt + 1, kind, row.session, text(move.error)]


def _end_calls(scope: Scope, ends: list[Move]) -> Verb[list[Move]]:
    """Write the outcomes of calls that have just become final; return the moves of their orphans."""
    yield Statement(
        "end_outcomes",
        {"rows": [[m.row.seq, m.row.session, text(m.value), text(m.error)] for m in ends], "now": scope.now},
    )
    yield from _tell(scope, ends)
    watched = [m.row.seq for m in ends if m.row.watched & CALLBACKS]
    if watched:
        yield Statement("end_wake", {"seqs": watched, "now": scope.now})
        scope.come_back()
    # A first run has asked for every child it has: only a later run, or an end without a body, can
    # leave children that nobody asks for.
    orphaned = [
        [m.row.seq, m.row.fence if m.by_body else NO_FENCE] for m in ends if not m.by_body or m.row.fence > 1
    ]
    if not orphaned:
        return []
    rows = yield Statement("end_children", {"rows": orphaned})
    return (yield from _stop_all(scope, [Row.read(r) for r in rows], "its parent has ended"))


def _tell(scope: Scope, ends: list[Move]) -> Verb[None]:
    """Tell every session that waits; the asking one in the answer, where that has a place for it."""
    others: dict[int, list[int]] = {}
    for m in ends:
        waiter = m.row.waiter
        if waiter is None:
            continue
        if scope.told is not None and waiter == scope.session:
            scope.told.append(Ended(m.row.id, m.state, m.value, m.error, m.attempt))
        else:
            others.setdefault(waiter, []).append(m.row.seq)
    yield from tell_others(scope, others)
    waited = [m.row.seq for m in ends if m.row.watched & WAITS]
    if waited:
        rows = yield Statement("end_waits", {"seqs": waited})
        scope.rung.update(session for (session,) in rows)
        yield Statement("end_tell_waits", {"seqs": waited})
        yield Statement("end_drop_waits", {"seqs": waited})


def tell_others(scope: Scope, others: dict[int, list[int]]) -> Verb[None]:
    """Put ends into the inboxes of the sessions that wait for them."""
    for session, seqs in others.items():
        yield Statement("end_tell", {"session": session, "seqs": seqs})
        scope.rung.add(session)


def cancel_rows(scope: Scope, rows: list[Row], message: str) -> Verb[None]:
    """Cancel live calls: ask the worker of a leased one, end the others here."""
    yield from apply_moves(scope, (yield from _stop_all(scope, rows, message)))


def _stop_all(scope: Scope, rows: list[Row], message: str) -> Verb[list[Move]]:
    """Ask the workers of leased calls; return the moves that end the others."""
    leased = [r for r in rows if r.state is State.LEASED and r.cancel_asked is None]
    if leased:
        seqs = [r.seq for r in leased]
        yield Statement("cancel_ask", {"seqs": seqs, "message": message})
        yield Statement("cancel_tell", {"seqs": seqs})
        scope.rung.update(r.session for r in leased if r.session is not None)
    return [stop(r, Event.CANCEL) for r in rows if r.state is not State.LEASED and not r.state.final]


def expire_calls(scope: Scope) -> Verb[None]:
    """End the calls that were not started in time."""
    rows = yield Statement("expire_match", {"now": scope.now})
    if rows:
        error = error_record(TaskExpired, "the call was not started before it expired")
        yield from apply_moves(scope, [stop(Row.read(r), Event.EXPIRE, error) for r in rows])
