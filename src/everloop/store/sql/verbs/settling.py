"""Settling: what the end of each lease does to its call."""

from __future__ import annotations

from everloop._core.calls import Event, State, step
from everloop._core.records import Ended, Outcome
from everloop.store.sql.verbs.ending import Move, Row, apply_moves
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement, Verb


def settle(scope: Scope, outcomes: list[Outcome]) -> Verb[tuple[list[bool], list[Ended]]]:
    """Move each call as its outcome says; a stale fence changes nothing and is answered False."""
    if not outcomes:
        return [], []
    rows = yield Statement("settle_match", {"rows": [[i, o.id, o.fence] for i, o in enumerate(outcomes)]})
    settled = [False] * len(outcomes)
    moves: list[Move] = []
    for i, seq, fence, attempt, crashes, due, waiter, watched, cancel_asked, session in rows:
        if settled[i]:
            continue
        settled[i] = True
        outcome = outcomes[i]
        row = Row(
            seq, outcome.id, State.LEASED, fence, attempt, crashes, due, waiter, watched, cancel_asked, session
        )
        moves.append(_move(scope.now, row, outcome))
    ended = yield from apply_moves(scope, _once(moves))
    return settled, ended


def _once(moves: list[Move]) -> list[Move]:
    """Keep one outcome per call: the same settlement twice in one turn is one."""
    seen: dict[int, Move] = {}
    for m in moves:
        seen.setdefault(m.row.seq, m)
    return list(seen.values())


def _move(now: int, row: Row, outcome: Outcome) -> Move:
    event = outcome.event
    attempt = row.attempt + (event is not Event.RELEASE)
    if event in (Event.RETRY, Event.RELEASE) and row.cancel_asked is not None:
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
