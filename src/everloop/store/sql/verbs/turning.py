"""The turn: add, settle, lease and take the inbox, in one transaction.

Nearly every turn asks twice: first for all that it has to know before it decides, then, behind what it
writes, for the calls that it leases. What seldom happens (calls that expire or fall due, suspects, an inbox
that has something) is seen by the first look and costs a question of its own only when it is there.

Where the database can (`Scope.straight`), most turns ask once, or only as they are committed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec.structs import replace

from everloop._core.calls import State
from everloop._core.records import Added, Cancel, Ended, Leased, Turn, TurnAnswer
from everloop.store.sql.verbs.adding import NO_LANES, add, add_plain, is_plain, plain_looks
from everloop.store.sql.verbs.alone import take_alone
from everloop.store.sql.verbs.ending import expire_calls
from everloop.store.sql.verbs.leased import in_order, leases_of
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.sessions import release_others
from everloop.store.sql.verbs.settling import match, settle
from everloop.store.sql.verbs.statement import Last, Statement, Verb, blob
from everloop.store.sql.verbs.straight import (
    FEW,
    add_at_once,
    first_look,
    is_first_success,
    is_straight,
    is_whole,
    keep_numbers,
    lease_at_once,
    look_at_once,
    settle_at_once,
    settled_at_once,
)

#: Calls, beside those that are wanted, of which the first ones that nobody holds are picked.
_ENOUGH = 5_000
#: Ends and cancellations that one answer holds at most.
INBOX = 2_000


class _Look(NamedTuple):
    """What stood in the store as the turn began.

    Attributes:
        alive: Whether the session is there; it stays for as long as the transaction.
        due: When the next scheduled call is due.
        expired: Whether a call has expired.
        suspects: Whether a suspect is ready, in whatever lane.
        told: Whether the session's inbox holds something.
        ready: Whether a call is ready in the lanes that the session serves.
    """

    alive: bool
    due: int | None
    expired: bool
    suspects: bool
    told: bool
    ready: bool

    @classmethod
    def read(cls, rows: list[list[Any]]) -> _Look:
        ((alive, due, expired, suspects, told, ready),) = rows
        return cls(bool(alive), due, bool(expired), bool(suspects), bool(told), bool(ready))

    def is_quiet(self, scope: Scope, request: Turn) -> bool:
        """Whether nothing has to be done beside what was asked: what `look_straight` sees, too."""
        late = self.expired or (self.due is not None and self.due <= scope.now)
        return not (late or self.told or (self.suspects and request.suspects))


def turn(scope: Scope, request: Turn) -> Verb[TurnAnswer]:
    """Do one turn (see `Store.turn`)."""
    lately = scope.lately if request.lanes else None
    if lately is not None:
        scope.since = lately.since(scope.now, request)
    answer = yield from _turn(scope, request)
    if lately is not None:
        answer = lately.after(scope.since, scope.now, answer)
    return answer if scope.alone is None else scope.alone.after(scope.session, scope.now, request, answer)


def _turn(scope: Scope, request: Turn) -> Verb[TurnAnswer]:
    ended: list[Ended] = []
    scope.told = ended
    if scope.alone is not None:
        taken = yield from take_alone(scope, request, scope.alone)
        if taken is not None:
            return taken
    if not is_straight(scope, request):
        return (yield from _go(scope, request, ended))
    answer, left = yield from _go_straight(scope, request, ended)
    if left is None:
        return answer
    following = yield from _go(scope, left, ended)
    again = iter(following.settled)
    return TurnAnswer(
        settled=[done or next(again) for done in answer.settled],
        added=answer.added,
        leased=[*answer.leased, *following.leased],
        ended=ended,
        cancels=[*answer.cancels, *following.cancels],
        next_due=following.next_due,
        more=answer.more or following.more,
    )


def _go_straight(scope: Scope, request: Turn, ended: list[Ended]) -> Verb[tuple[TurnAnswer, Turn | None]]:
    """Do at once what can be done so; return the answer to it, and the turn that is left, if one is."""
    outcomes, serves, whole = request.outcomes, bool(request.lanes), is_whole(request)
    began = scope.clock.now()
    looking = look_at_once(scope, request)
    first = [*looking, *_progress(request), *add_at_once(scope, request.adds)]
    first += settle_at_once(scope, outcomes, whole=whole)
    if serves:
        then = [*([_due(scope)] if scope.scheduled else []), *lease_at_once(scope, request)]
    elif scope.compound:
        then = [Statement("inbox_straight", {"session": scope.session, "most": INBOX})]
    else:
        then = [Statement("inbox_told", {"session": scope.session})]
    if not (serves or scope.compound) and len(request.adds) <= FEW:
        replies = yield Last(first, then)  # whoever is woken need not wait for it
    else:
        replies = yield (Last if whole else list)([*first, *then])
    keep_numbers(scope, first, replies, len(request.adds))
    scope.rings = False
    settled = settled_at_once(scope, outcomes, replies[len(first) - 1]) if outcomes else []
    cancels: list[Cancel] = []
    leased: list[Leased] = []
    next_due, more = None, False
    quiet = True
    if serves:
        ((*seen, _),) = replies[0]
        look = _Look.read([[*seen, True]])  # whether any call is ready, leasing finds by itself
        quiet = look.is_quiet(scope, request)
        next_due = replies[len(first)][0][0] if scope.scheduled else look.due
        leased = leases_of(scope, in_order(replies[-1])) if request.room > 0 else []
    elif scope.compound:
        _read_inbox(replies[-1], ended, cancels)
        more = len(replies[-1]) == INBOX
    else:
        ((told,),) = replies[-1]
        quiet = not told
    answer = TurnAnswer(
        settled=settled,
        added=[Added(call.id) for call in request.adds],
        leased=leased,
        ended=ended,
        cancels=cancels,
        next_due=next_due,
        more=more,
    )
    if quiet and all(settled):
        if serves and request.room > 0:
            _looked(scope, request, began, replies[-1])
        return answer, None
    left = [o for o, done in zip(outcomes, settled, strict=True) if not done]
    return answer, replace(request, adds=[], outcomes=left, progress=[], room=request.room - len(leased))


def _go(scope: Scope, request: Turn, ended: list[Ended]) -> Verb[TurnAnswer]:
    """Do a turn the ordinary way."""
    asks = request.outcomes or request.adds or request.progress or request.lanes
    if asks or request.holding is not None:
        return (yield from _look_first(scope, request, ended))
    # It takes what the inbox holds, and nothing else.
    cancels: list[Cancel] = []
    found = yield _inbox(scope)
    yield from _take_inbox(scope, found, ended, cancels)
    return TurnAnswer(ended=ended, cancels=cancels, more=len(found) == INBOX)


def _progress(request: Turn) -> list[Statement]:
    # Before the outcomes: the last thing that a run says of itself comes with its end.
    last = {(p.id, p.fence): list(p) for p in request.progress}
    return [Statement("progress_put", {"rows": list(last.values())})] if last else []


def _look_first(scope: Scope, request: Turn, ended: list[Ended]) -> Verb[TurnAnswer]:
    """Do a turn for which things have to be known before they are decided."""
    yield from _progress(request)
    look, added, settled, early = yield from _look_and_write(scope, request)
    if request.holding is not None:
        # What could not be settled yet has been run: its outcome comes again.
        held = [o.id for o, done in zip(request.outcomes, settled, strict=True) if done is None]
        yield from release_others(scope, {*request.holding, *held})
    next_due: int | None = None
    if request.lanes:
        next_due = yield from _promote(scope, look)
    if scope.back and scope.lately is not None:
        scope.lately.hurry()
    picks, suspects = _picks(scope, request, look), _suspects(scope, request, look)
    late = look.expired or scope.ready or scope.returned
    if early is not None and picks and not (suspects or late):
        picks = []  # nothing has come to the lines since
    else:
        early = []
    inbox = look.told or scope.session in scope.rung
    asked = [*([_inbox(scope)] if inbox else []), *([_due(scope)] if scope.scheduled else [])]
    wanted = [*picks, *suspects, *asked]
    began = scope.clock.now()
    replies = (yield wanted) if wanted else []
    if picks:
        replies[0] = _picked(scope, request, began, replies[0])
    found = [row for rows in replies[: len(picks) + len(suspects)] for row in rows]
    leased = yield from _lease(scope, request, [*early, *found])
    scope.ready = scope.ready or scope.crowded  # whoever came meanwhile has passed over them
    if scope.scheduled and request.lanes:
        ((next_due,),) = replies[-1]
    cancels: list[Cancel] = []
    told = replies[len(picks) + len(suspects)] if inbox else []
    yield from _take_inbox(scope, told, ended, cancels)
    return TurnAnswer(
        settled=settled,
        added=added,
        leased=leased,
        ended=ended,
        cancels=cancels,
        next_due=next_due,
        more=len(told) == INBOX,
    )


def _look_and_write(
    scope: Scope, request: Turn
) -> Verb[tuple[_Look, list[Added], list[bool | None], list[list[Any]] | None]]:
    """Ask for everything at once where that can be, and write the calls, then the outcomes.

    In this order: a run may have submitted children, and ended without awaiting them.

    It is also asked for what may be leased, as long as the outcomes bring nothing that would go before that,
    and wait for nobody: what is picked is held.
    """
    adds, outcomes = request.adds, request.outcomes
    plain = all(map(is_plain, adds))  # such calls change nothing about the leases that are settled
    lanes, picks = scope.numbers(request.lanes), _picks_early(scope, request)
    asked = [] if picks or scope.since is not None or request.room <= 0 else list(lanes)
    first = [first_look(scope, asked)]
    first += [match(outcomes)] if outcomes and plain else []
    first += plain_looks(adds) if adds and plain else []
    began = scope.clock.now()
    replies = yield [*first, *picks]
    look = _Look.read(replies[0])
    early = _picked(scope, request, began, replies.pop()) if picks else None
    if picks or scope.since is not None:
        look = look._replace(ready=True)  # as far as it matters
    matched = replies[1] if outcomes and plain else None
    added: list[Added] | None = None
    if adds and plain:
        start = lanes if _is_idle(scope, request, look) else NO_LANES
        added = yield from add_plain(scope, adds, replies[-2:], start=start)
    if added is None:
        # What joins a call that is there may change what was matched: it is asked for again.
        matched = matched if not adds else None
        added = yield from add(scope, adds)
    settled = yield from settle(scope, outcomes, matched)
    return look, added, settled, early


def _is_idle(scope: Scope, request: Turn, look: _Look) -> bool:
    """Tell whether what is added can start at once: nothing stands before it, and there is room for all."""
    return (
        look.alive
        and not (look.ready or look.suspects or look.expired)
        and (look.due is None or look.due > scope.now)
        and request.roots
        and request.holding is None
        and not request.outcomes
        and len(request.adds) <= request.room
    )


def _promote(scope: Scope, look: _Look) -> Verb[int | None]:
    """End the calls that expired, and make ready those whose time has come; return when the next is due.

    Where that may have changed, it has to be asked for again: `scope.scheduled` says so.
    """
    if look.expired or scope.returned:
        yield from expire_calls(scope)
        scope.scheduled = True  # one of them may have been the next that was due
    if look.due is not None and look.due <= scope.now:
        yield Statement("due_ready", {"now": scope.now, "due_from": scope.due_from})
        scope.come_back()  # and one of them may be a suspect
    return look.due


def _picks(scope: Scope, request: Turn, look: _Look) -> list[Statement]:
    """Return the query for the calls that may be leased; none for a session that was reaped."""
    if not (request.lanes and request.room > 0 and look.alive):
        return []
    return [_pick(scope, request)] if look.ready or scope.ready else []


def _suspects(scope: Scope, request: Turn, look: _Look) -> list[Statement]:
    """Return the query for a suspect, where one may be leased."""
    takes = request.lanes and request.room > 0 and look.alive
    # A call that came back in this turn may be one.
    if not (takes and request.suspects and (look.suspects or scope.returned)):
        return []
    lanes = list(scope.numbers(request.lanes))
    return [Statement("lease_pick_suspect", {"lanes": lanes, "depth": 0 if request.roots else 1})]


def _picks_early(scope: Scope, request: Turn) -> list[Statement]:
    """Return the query for the calls that may be leased where it can be asked before the turn has written."""
    if not (scope.straight and request.lanes and request.room > 0):
        return []
    waits = request.adds or request.holding is not None or not all(map(is_first_success, request.outcomes))
    return [] if waits else [_pick(scope, request)]


def _pick(scope: Scope, request: Turn) -> Statement:
    lanes, room = list(scope.numbers(request.lanes)), request.room
    if scope.since is not None:
        asked = {"lanes": lanes, "depth": 0 if request.roots else 1, "since": scope.since}
        asked |= {"room": room + 1, "most": _ENOUGH + room, "now": scope.now}
        return Statement("lease_lately", asked)
    return Statement("lease_pick" if request.roots else "lease_pick_children", {"lanes": lanes, "room": room})


def _picked(scope: Scope, request: Turn, began: int, rows: list[list[Any]]) -> list[list[Any]]:
    """Return what was picked; nothing where there is so much that the next turn has to pick it out of all."""
    _looked(scope, request, began, rows)
    if scope.since is None or len(rows) <= request.room:
        return rows
    scope.crowded = True
    return []


def _looked(scope: Scope, request: Turn, began: int, rows: list[list[Any]]) -> None:
    if scope.lately is not None:
        scope.lately.looked(request, scope.since, began, scope.clock.now(), len(rows))


def _lease(scope: Scope, request: Turn, rows: list[list[Any]]) -> Verb[list[Leased]]:
    """Take what was picked, in order, as far as there is room."""
    if rows:
        rows = in_order(rows)[: request.room]
        seqs = [row[0] for row in rows]
        yield Statement("lease_take", {"seqs": seqs, "session": scope.session, "now": scope.now})
    return leases_of(scope, rows or in_order(scope.started))


def _due(scope: Scope) -> Statement:
    return Statement("due_next", {"due_from": scope.due_from})


def _inbox(scope: Scope) -> Statement:
    return Statement("inbox_read", {"session": scope.session, "most": INBOX})


def _take_inbox(scope: Scope, rows: list[list[Any]], ended: list[Ended], cancels: list[Cancel]) -> Verb[None]:
    """Move what was read of the inbox into the answer."""
    if not rows:
        return
    if scope.alone is not None and len(rows) > FEW:
        scope.alone.many = True
    last, kind, *_ = rows[-1]
    read = [row[:2] for row in rows]
    yield Statement("inbox_take", {"session": scope.session, "seq": last, "kind": kind, "rows": read})
    _read_inbox(rows, ended, cancels)


def _read_inbox(rows: list[list[Any]], ended: list[Ended], cancels: list[Cancel]) -> None:
    told = {end.id for end in ended}  # by this turn's own settlements, in the answer itself
    for _, kind, id_, state, value, error, attempt, fence, asked in rows:
        if kind == "cancel":
            if state == State.LEASED:
                cancels.append(Cancel(id_, fence, asked or ""))
        elif id_ not in told:
            ended.append(Ended(id_, State(state), blob(value), blob(error), attempt))
