"""The straight way of a turn: for what nearly every turn is, with nothing decided on the way.

A plain root is added; the first run of a call on which nothing hangs succeeds; whatever is ready is leased;
ends are taken out of the inbox. All of that is sent at once, and each statement passes over what it is not
made for. What is left alone goes the ordinary way afterwards, in the same transaction; or, where the commit
was sent along, in one that follows after nothing at all has been done.

A call that is there already makes the transaction fail, and the runner begins it anew, the ordinary way.
"""

from __future__ import annotations

from typing import Any

from everloop._core.calls import Event, State
from everloop._core.clock import LAST
from everloop._core.records import Ended, NewCall, Outcome, Turn
from everloop.store.sql.verbs.adding import came, groups, is_plain
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement, text

#: Outcomes that are settled all together or not at all.
FEW = 16
#: Bytes of arguments and results in a small turn.
LITTLE = 16_384


def is_straight(scope: Scope, request: Turn) -> bool:
    """Tell whether a turn may go straight."""
    adds, outcomes = request.adds, request.outcomes
    return bool(
        scope.straight
        and (scope.compound or (adds and not outcomes and not request.lanes))
        and request.holding is None
        and request.roots
        and all(map(is_plain, adds))
        and all(map(is_first_success, outcomes))
        and len({c.id for c in adds}) == len(adds)
        and len({o.id for o in outcomes}) == len(outcomes)
    )


def is_first_success(outcome: Outcome) -> bool:
    return outcome.fence == 1 and outcome.event is Event.SUCCEED and outcome.error is None


def is_whole(request: Turn) -> bool:
    """Tell whether a turn is sent with its commit: all of it is done then, or nothing at all.

    One with many outcomes is not: a single call on which something hangs would make it go twice.
    """
    if request.lanes:
        return not request.adds and not request.progress and len(request.outcomes) <= FEW
    return not request.outcomes


def is_small(request: Turn) -> bool:
    """Tell whether a turn that is sent with its commit is so small that it leaves in one piece, or nearly."""
    adds, outcomes = request.adds, request.outcomes
    if len(adds) > FEW or not is_whole(request):
        return False
    return sum(len(c.args) for c in adds) + sum(len(o.value or b"") for o in outcomes) <= LITTLE


def add_at_once(scope: Scope, adds: list[NewCall]) -> list[Statement]:
    """Return what adds plain roots, and fails when one of them is there."""
    if not adds:
        return []
    first = scope.spare.take(len(adds), scope.now) if scope.spare is not None and len(adds) <= FEW else None
    found = groups(scope, adds, first or 0)
    payloads = {"args": [text(c.args) for c in adds], "now": scope.now}
    for group, state in found:
        came(scope, state, group["due"])
    if scope.compound and len(found) == 1:
        ((group, state),) = found
        return [Statement("add_straight", {**group, "state": state, **payloads})]
    if first is not None:
        steps = [Statement("add_roots", {**group, "state": state}) for group, state in found]
        return [*steps, Statement("add_root_payloads", {"first": first, **payloads})]
    steps = [Statement("seq_next", {"n": len(adds)})]
    steps += [Statement("add_roots_next", {**group, "state": state}) for group, state in found]
    return [*steps, Statement("add_root_payloads_next", payloads)]


def keep_numbers(scope: Scope, sent: list[Statement], replies: list[Any], used: int) -> None:
    """Keep what is left of the block that was taken with what was sent, if one was."""
    if scope.spare is None:
        return
    names = [statement.name for statement in sent]
    if "seq_next" in names:
        ((first,),) = replies[names.index("seq_next")]
        scope.spare.keep(first, used, scope.now)


def settle_at_once(scope: Scope, outcomes: list[Outcome], *, whole: bool) -> list[Statement]:
    """Return what ends those whose calls nothing hangs on, and passes over the others."""
    if not outcomes:
        return []
    scope.rings = whole
    return [
        Statement(
            "settle_straight",
            {
                "ids": [o.id for o in outcomes],
                "values": [text(o.value) for o in outcomes],
                "whole": int(whole),
                "session": scope.session,
                "now": scope.now,
            },
        )
    ]


def settled_at_once(scope: Scope, outcomes: list[Outcome], rows: list[list[Any]]) -> list[bool | None]:
    """Read the reply: which have ended; False for those that are left."""
    settled: list[bool | None] = [False] * len(outcomes)
    for i, waiter in rows:
        if i is None:
            continue
        settled[i] = True
        if waiter is None:
            continue
        if waiter != scope.session:
            scope.rung.add(waiter)
        elif scope.told is not None:
            outcome = outcomes[i]
            scope.told.append(Ended(outcome.id, State.SUCCEEDED, outcome.value, None, 1))
    return settled


def first_look(scope: Scope, lanes: list[int]) -> Statement:
    """Return what sees what a turn has to do beside what it was asked."""
    return Statement("look", {"session": scope.session, "now": scope.now, "lanes": lanes, **_reach(scope)})


def look_at_once(scope: Scope, request: Turn) -> list[Statement]:
    """Return what sees whether there is something to be done before calls are leased."""
    if not request.lanes:
        return []
    asked = {"session": scope.session, "now": scope.now, "wanted": int(request.suspects)}
    return [Statement("look_straight", {**asked, **_reach(scope)})]


def _reach(scope: Scope) -> dict[str, int]:
    """Return how far back a look goes. What has expired is seen by looks at all, and taken by no other."""
    return {"due_from": scope.due_from, "expires_from": 0 if scope.since is None else LAST}


def lease_at_once(scope: Scope, request: Turn) -> list[Statement]:
    """Return what leases, unless there is something to be done before."""
    if not (request.lanes and request.room > 0):
        return []
    asked = {
        "lanes": list(scope.numbers(request.lanes)),
        "room": request.room,
        "session": scope.session,
        "now": scope.now,
    }
    if scope.since is not None:
        return [Statement("lease_lately_straight", {**asked, "since": scope.since})]
    return [Statement("lease_straight", asked)]
