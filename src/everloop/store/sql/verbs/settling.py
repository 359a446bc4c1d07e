"""Settling: what the end of each lease does to its call."""

from __future__ import annotations

from everloop._core.calls import Event, State, step
from everloop._core.records import Outcome
from everloop.store.sql.verbs.ending import Move, Row, apply_moves, stop
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement, Verb


def settle(scope: Scope, outcomes: list[Outcome]) -> Verb[list[bool]]:
    """Move each call as its outcome says; a stale fence changes nothing and is answered False."""
    if not outcomes:
        return []
    rows = yield Statement("settle_match", {"rows": [[i, o.id, o.fence] for i, o in enumerate(outcomes)]})
    settled = [False] * len(outcomes)
    moves: dict[int, Move] = {}
    for i, seq, *rest in sorted(rows):
        if seq not in moves:  # of two outcomes of one lease, the first one counts
            settled[i] = True
            moves[seq] = _move(scope.now, Row(seq, outcomes[i].id, State.LEASED, *rest), outcomes[i])
    yield from apply_moves(scope, list(moves.values()))
    return settled


def _move(now: int, row: Row, outcome: Outcome) -> Move:
    event = outcome.event
    if event is Event.RELEASE and row.cancel_asked is not None:
        return stop(row, Event.CANCEL, outcome.error)
    attempt = row.attempt + (event is not Event.RELEASE)
    if event is Event.RETRY and row.cancel_asked is not None:
        # Its cancellation was asked while it ran: it does not go back to the queue.
        return Move(row, State.CANCELLED, row.due, attempt, row.crashes, error=outcome.error, by_body=True)
    state = step(State.LEASED, event)
    if state is State.SCHEDULED:
        due = now + outcome.delay if outcome.delay else row.due
        ready = State.READY if due <= now else State.SCHEDULED
        return Move(row, ready, due, attempt, row.crashes, growth=1)
    return Move(
        row, state, row.due, attempt, row.crashes, value=outcome.value, error=outcome.error, by_body=True
    )
