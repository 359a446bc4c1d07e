"""One call at a time: turns of a single call, where one statement cannot do several things.

An idle worker that a bell has woken takes one call, looking at nothing beside it, in one trip. The end of
that call goes as straight, and only behind the commit and the bell it is looked for what else there is. Each
statement passes over what it was not made for: then nothing at all is done, and the turn goes the ordinary
way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from everloop._core.calls import State
from everloop._core.records import Ended, Leased, Outcome, Turn, TurnAnswer
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Last, Statement, Verb, blob, text
from everloop.store.sql.verbs.straight import FEW, is_first_success

#: Leases that are remembered, at most.
_MOST = 1_000
#: Microseconds after which there is another look when a bell has rung for nothing: what it was about may not
#: have been there yet.
AGAIN = 5_000
#: Microseconds in which that is done once. Where several workers are rung for each call, most find nothing.
SELDOM = 100_000


class _Lease(NamedTuple):
    """A first run that was taken alone.

    Attributes:
        waiter: Who is told of its end, as it was then; the statements see whether it still is so.
    """

    seq: int
    waiter: int | None


@dataclass(slots=True)
class Alone:
    """What a store remembers of its sessions. All of it may be wrong, at the cost of a trip.

    Attributes:
        rung: Sessions for which a bell has rung since their last turn.
        turns: How many turns there were.
        many: Whether the last one was about many calls: then nothing is told before the next one.
    """

    rung: set[int] = field(default_factory=set[int])
    turns: int = 0
    many: bool = False
    _woken: bool = False  # the turn under way is that of an idle session that a bell has woken
    _again: int = 0  # when one of these last found nothing
    _room: dict[int, int] = field(default_factory=dict[int, int])
    _leases: dict[str, _Lease] = field(default_factory=dict[str, _Lease])

    def comes_idle(self, session: int, request: Turn) -> bool:
        """Tell whether a bell has woken a session that runs nothing, and note its turn."""
        rung = session in self.rung
        self.rung.discard(session)
        most = self._room[session] = max(request.room, self._room.get(session, 0))
        only = not (request.adds or request.outcomes or request.progress)
        self._woken = bool(
            rung
            and only
            and request.lanes
            and request.roots
            and request.holding is None
            and 0 < request.room == most
        )
        return self._woken

    def after(self, now: int, answer: TurnAnswer) -> TurnAnswer:
        """Return the answer to a turn, with the time at which it must be looked again."""
        woken, self._woken = self._woken, False
        if not woken or answer.leased or abs(now - self._again) < SELDOM:
            return answer
        self._again = now
        return replace(answer, next_due=min(answer.next_due or now + AGAIN, now + AGAIN))

    def remember(self, id_: str, seq: int, waiter: int | None) -> None:
        if len(self._leases) >= _MOST:
            self._leases.clear()
        self._leases[id_] = _Lease(seq, waiter)

    def ends(self, request: Turn) -> _Lease | None:
        """Return the lease that a turn ends, where it does nothing else."""
        if len(request.outcomes) != 1 or not self._leases:
            return None
        (outcome,) = request.outcomes
        lease = self._leases.pop(outcome.id, None)
        only = not (request.adds or request.progress) and request.holding is None
        return lease if only and is_first_success(outcome) else None


def take_alone(scope: Scope, request: Turn, alone: Alone) -> Verb[TurnAnswer | None]:
    """Do a turn of a single call; None when it is none, and nothing has been done."""
    session = scope.session
    if session is None or not scope.straight:
        return None
    alone.turns += 1
    alone.many = len(request.adds) + len(request.outcomes) > FEW
    idle, lease = alone.comes_idle(session, request), alone.ends(request)
    if lease is not None:
        return (yield from _settle(scope, request, request.outcomes[0], lease))
    return (yield from _lease(scope, request, alone)) if idle else None


def _lease(scope: Scope, request: Turn, alone: Alone) -> Verb[TurnAnswer | None]:
    lanes = list(scope.numbers(request.lanes))
    (rows,) = yield Last(
        [Statement("lease_alone", {"lanes": lanes, "session": scope.session, "now": scope.now})]
    )
    if not rows:
        scope.unchanged = True
        return None
    ((waiter, watched, seq, id_, fence, lane, args, policy, *rest),) = rows
    if fence == 1 and not watched:
        alone.remember(id_, seq, waiter)
    leased = Leased(id_, fence, scope.names[lane], blob(args) or b"", blob(policy) or b"", *rest)
    # Nothing else was looked at: that is to be done as soon as the body had time to end.
    return TurnAnswer(leased=[leased], next_due=scope.now)


def _settle(scope: Scope, request: Turn, outcome: Outcome, lease: _Lease) -> Verb[TurnAnswer | None]:
    waiter = lease.waiter
    asked = {"session": scope.session, "now": scope.now}
    ends = [Statement("settle_alone", {**asked, **lease._asdict(), "value": text(outcome.value)})]
    if waiter is not None and waiter != scope.session:
        ends.append(Statement("tell_alone", {"waiter": waiter}))
        scope.rung.add(waiter)
    looks = [Statement("settled_alone", {})]
    if request.lanes:
        looks.append(Statement("look", {**asked, "lanes": list(scope.numbers(request.lanes))}))
    replies = yield Last(ends, looks)
    ((settled,),) = replies[len(ends)]
    if settled is None:
        scope.unchanged = True
        return None
    next_due: int | None = None
    more = False
    if request.lanes:
        ((_, next_due, expired, suspects, told, ready),) = replies[-1]
        more = bool(expired or told or ready or (suspects and request.suspects))
    ended = [Ended(outcome.id, State.SUCCEEDED, outcome.value, None, 1)] if waiter == scope.session else []
    return TurnAnswer(settled=[True], ended=ended, next_due=next_due, more=more)
