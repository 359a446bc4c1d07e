"""The turn: add, settle, lease and take the inbox, in one transaction."""

from __future__ import annotations

from typing import Any

from everloop._core.calls import State
from everloop._core.records import Cancel, Ended, Leased, Turn, TurnAnswer
from everloop.store.sql.verbs.adding import add
from everloop.store.sql.verbs.ending import expire_calls
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.sessions import release_others
from everloop.store.sql.verbs.settling import settle
from everloop.store.sql.verbs.statement import Statement, Verb, blob

#: Ends and cancellations that one answer holds at most.
INBOX = 2_000


def turn(scope: Scope, request: Turn) -> Verb[TurnAnswer]:
    """Do one turn (see `Store.turn`)."""
    ended: list[Ended] = []
    scope.told = ended
    if request.progress:
        # Before the outcomes: the last thing that a run says of itself comes with its end.
        yield Statement("progress_put", {"rows": [list(p) for p in request.progress]})
    # Before the outcomes too: a run may have submitted children, and ended without awaiting them.
    added = yield from add(scope, request.adds)
    settled = yield from settle(scope, request.outcomes)
    if request.holding is not None:
        yield from release_others(scope, request.holding)
    leased: list[Leased] = []
    next_due: int | None = None
    if request.lanes:
        yield from expire_calls(scope)
        next_due = yield from _promote(scope)
        if request.room > 0:
            leased = yield from _lease(scope, request)
    cancels: list[Cancel] = []
    more = yield from _take_inbox(scope, ended, cancels)
    return TurnAnswer(
        settled=settled,
        added=added,
        leased=leased,
        ended=ended,
        cancels=cancels,
        next_due=next_due,
        more=more,
    )


def _promote(scope: Scope) -> Verb[int | None]:
    """Make the scheduled calls ready whose time has come; return when the next one is due."""
    ((due,),) = yield Statement("due_next", {})
    if due is None or due > scope.now:
        return due  # type: ignore[no-any-return]  # a column
    yield Statement("due_ready", {"now": scope.now})
    scope.ready = True
    ((due,),) = yield Statement("due_next", {})
    return due  # type: ignore[no-any-return]  # a column


def _lease(scope: Scope, request: Turn) -> Verb[list[Leased]]:
    pick = "lease_pick" if request.roots else "lease_pick_children"
    lanes = list({scope.lanes[lane] for lane in request.lanes})
    rows = yield Statement(pick, {"lanes": lanes, "room": request.room, "session": scope.session})
    if request.suspects:
        depth = 0 if request.roots else 1
        found = yield Statement(
            "lease_pick_suspect", {"lanes": lanes, "depth": depth, "session": scope.session}
        )
        if found:
            rows = sorted([*rows, *found], key=_place)[: request.room]
    if not rows:
        return []
    yield Statement(
        "lease_take", {"seqs": [row[0] for row in rows], "session": scope.session, "now": scope.now}
    )
    names = scope.names
    return [
        Leased(id_, fence, names[lane], blob(args) or b"", blob(policy) or b"", *rest)
        for _, _, _, id_, fence, lane, args, policy, *rest in rows
    ]


def _place(row: list[Any]) -> tuple[int, int, int, int, int]:
    """Return what the calls of a turn are ordered by, as the statements do."""
    seq, place, root, *_, depth, priority, _after, _due, _created = row
    return -priority, place, root, -depth, seq


def _take_inbox(scope: Scope, ended: list[Ended], cancels: list[Cancel]) -> Verb[bool]:
    """Move the inbox into the answer; True when there is more."""
    rows = yield Statement("inbox_read", {"session": scope.session, "most": INBOX})
    if not rows:
        return False
    last, kind, *_ = rows[-1]
    yield Statement("inbox_take", {"session": scope.session, "seq": last, "kind": kind})
    told = {end.id for end in ended}  # by this turn's own settlements, in the answer itself
    for _, kind, id_, state, value, error, attempt, fence, asked in rows:
        if kind == "cancel":
            if state == State.LEASED:
                cancels.append(Cancel(id_, fence, asked or ""))
        elif id_ not in told:
            ended.append(Ended(id_, State(state), blob(value), blob(error), attempt))
    return len(rows) == INBOX
