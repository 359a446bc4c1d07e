"""Settling: what the end of each lease does to its call."""

from __future__ import annotations

from typing import Any

from everloop._core.calls import Event, State, step
from everloop._core.records import Ended, Outcome
from everloop.store.sql.verbs.ending import Move, Row, apply_moves, crash, stop, tell_others
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement, Verb, text


def match(outcomes: list[Outcome]) -> Statement:
    """Return the query for the leases that are still what the outcomes take them for, and free."""
    return Statement("settle_match", {"rows": [[i, o.id, o.fence] for i, o in enumerate(outcomes)]})


def settle(
    scope: Scope, outcomes: list[Outcome], rows: list[list[Any]] | None = None
) -> Verb[list[bool | None]]:
    """Move each call as its outcome says; a stale fence changes nothing and is answered False.

    `rows` is the reply to `match(outcomes)` where that has been asked already.
    """
    if not outcomes:
        return []
    matched = (yield match(outcomes)) if rows is None else rows
    settled: list[bool | None] = [False] * len(outcomes)
    if len(matched) < len(outcomes):
        found = {row[0] for row in matched}
        missing = [[i, o.id, o.fence] for i, o in enumerate(outcomes) if i not in found]
        for (i,) in (yield Statement("settle_held", {"rows": missing})):
            settled[i] = None  # its lease is the current one, but another transaction holds the row
    plain: dict[int, tuple[Outcome, int, int | None]] = {}
    moves: dict[int, Move] = {}
    for i, seq, *rest, crash_limit in sorted(matched):
        if seq in plain or seq in moves:
            continue  # of two outcomes of one lease, the first one counts
        outcome = outcomes[i]
        settled[i] = True
        fence, attempt, _, _, waiter, watched, _, session = rest
        alone = fence == 1 and not watched and session == scope.session
        if alone and outcome.event is Event.SUCCEED and outcome.error is None:
            plain[seq] = outcome, attempt + 1, waiter
        else:
            moves[seq] = _move(scope.now, Row(seq, outcome.id, State.LEASED, *rest), outcome, crash_limit)
    if plain:
        yield from _succeed(scope, plain)
    yield from apply_moves(scope, list(moves.values()))
    return settled


def _succeed(scope: Scope, plain: dict[int, tuple[Outcome, int, int | None]]) -> Verb[None]:
    """End first runs that succeeded and that nothing hangs on: nearly all of what is ever settled.

    By seq: the outcome, the attempts, and who waits. The same as `apply_moves`, with less to write.
    """
    yield Statement("succeed", {"seqs": list(plain)})
    values = {seq: text(outcome.value) for seq, (outcome, _, _) in plain.items()}
    yield Statement("succeed_values", {"values": values, "now": scope.now, "session": scope.session})
    others: dict[int, list[int]] = {}
    for seq, (outcome, attempt, waiter) in plain.items():
        if waiter is None:
            continue
        if scope.told is not None and waiter == scope.session:
            scope.told.append(Ended(outcome.id, State.SUCCEEDED, outcome.value, None, attempt))
        else:
            others.setdefault(waiter, []).append(seq)
    yield from tell_others(scope, others)


def _move(now: int, row: Row, outcome: Outcome, crash_limit: int) -> Move:
    event = outcome.event
    if event is Event.REAP:
        return crash(row, crash_limit, outcome.error)
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
        return Move(row, ready, due, attempt, row.crashes, growth=1, error=outcome.error)
    return Move(
        row, state, row.due, attempt, row.crashes, value=outcome.value, error=outcome.error, by_body=True
    )
