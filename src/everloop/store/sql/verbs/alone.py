"""One call at a time, or a few: turns that go by themselves, where one statement cannot do several things.

An idle worker that a bell has woken takes one call, looking at nothing beside it, in one trip; or several,
where several came the last time. Their end goes as straight, and only behind the commit and the bell it is
looked for what else there is. Each statement passes over what it was not made for: then nothing at all is
done, and the turn goes the ordinary way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from everloop._core.calls import State
from everloop._core.clock import LAST
from everloop._core.records import Ended, Outcome, Turn, TurnAnswer
from everloop.store.sql.verbs.lately import MOST, SLOW
from everloop.store.sql.verbs.leased import in_order, leases_of
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Last, Statement, Verb, text
from everloop.store.sql.verbs.straight import FEW, first_look, is_first_success

#: Calls that are taken at once, at most, and ends that are said at once: all of them or none.
SEVERAL = 64
#: Leases that are remembered, at most.
_MOST = 1_000
#: A bell may ring just before the commit that it is about can be seen (docs/decisions/0018). Microseconds
#: after which there is another look: when the first has found nothing, and in any case, once in so many.
SOON = 1_000
AGAIN, SELDOM = 5_000, 100_000
#: Microseconds which a look may take together with a commit before it is seen why.
LONG = 2 * SLOW


class _Lease(NamedTuple):
    """A first run that was taken so.

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
        idle: Whether its session ran nothing after it, and serves.
        slow: Whether a look at all calls has taken long. The next one goes the ordinary way, where it is seen
            whether looks at all are to be avoided (see `Lately`).
    """

    rung: set[int] = field(default_factory=set[int])
    turns: int = 0
    many: bool = False
    idle: bool = False
    slow: bool = False
    _seen_at: int = 0  # when a turn last went the ordinary way because of that
    _several: bool = False  # the last time there was more than one to be taken
    _rung: bool = False  # a bell has rung before the turn under way, which may lease
    _idle: bool = False  # and its session runs nothing
    _again_at: int = 0  # when there is another look, or was the last
    _room: dict[int, int] = field(default_factory=dict[int, int])
    _leases: dict[str, _Lease] = field(default_factory=dict[str, _Lease])

    def comes_idle(self, session: int, request: Turn) -> bool:
        """Tell whether a bell has woken a session that runs nothing, and note its turn."""
        rung = session in self.rung
        self.rung.discard(session)
        most = self._room[session] = max(request.room, self._room.get(session, 0))
        only = not (request.adds or request.outcomes or request.progress)
        self._rung = bool(rung and request.lanes and request.room > 0)
        whole = request.room == most and request.roots and request.holding is None
        self._idle = self._rung and only and whole
        return self._idle

    def goes_on(self, now: int, *, looks: bool) -> None:
        """Note that the turn under way goes the ordinary way, and whether it looks at all calls."""
        self._idle = False
        if looks and self.slow:
            self.slow, self._seen_at = False, now

    def looked(self, now: int, took: int) -> None:
        """Note how long a look at all has taken, with the commit of what it has found."""
        self.slow = took >= LONG and not self._seen_at <= now < self._seen_at + MOST

    def after(self, session: int | None, now: int, request: Turn, answer: TurnAnswer) -> TurnAnswer:
        """Return the answer to a turn, with the time at which it must be looked again."""
        most = 0 if session is None else self._room.get(session, 0)
        self.idle = bool(request.lanes) and 0 < request.room - len(answer.leased) == most
        rung, self._rung = self._rung, False
        again: list[int] = []
        # A call that was leased alone is soon followed by a turn that looks at everything.
        if rung and len(answer.leased) < request.room and not (self._idle and answer.leased):
            if not (answer.leased or answer.ended or answer.cancels):
                again.append(now + SOON)
            if not now < self._again_at <= now + SELDOM:
                self._again_at = min(max(now + AGAIN, self._again_at + SELDOM), now + SELDOM)
        if now < self._again_at <= now + SELDOM:
            again.append(self._again_at)
        if again and answer.next_due is not None:
            again.append(answer.next_due)
        return replace(answer, next_due=min(again)) if again else answer

    @property
    def most(self) -> int:
        """How many calls are taken at once."""
        return SEVERAL if self._several else 1

    def took(self, count: int) -> None:
        """Note how many calls there were at once."""
        self._several = count > 1

    def remember(self, id_: str, seq: int, waiter: int | None) -> None:
        if len(self._leases) >= _MOST:
            self._leases.clear()
        self._leases[id_] = _Lease(seq, waiter)

    def ends(self, request: Turn) -> list[_Lease]:
        """Return the leases that a turn ends, where it does nothing else, and tells one session of all."""
        if not self._leases or not 0 < len(request.outcomes) <= SEVERAL:
            return []
        found = [self._leases.pop(outcome.id, None) for outcome in request.outcomes]
        leases = [lease for lease in found if lease is not None]
        only = not (request.adds or request.progress) and request.holding is None
        first = all(map(is_first_success, request.outcomes))
        together = len(leases) == len(found) and len({lease.waiter for lease in leases}) == 1
        return leases if only and first and together else []


def take_alone(scope: Scope, request: Turn, alone: Alone) -> Verb[TurnAnswer | None]:
    """Do a turn of a single call; None when it is none, and nothing has been done."""
    session = scope.session
    if session is None or not scope.straight:
        return None
    alone.turns += 1
    alone.many = len(request.adds) + len(request.outcomes) > FEW
    idle, leases = alone.comes_idle(session, request), alone.ends(request)
    if leases:
        return (yield from _settle(scope, request, leases, alone))
    taken: TurnAnswer | None = None
    if idle and (scope.since is not None or not (alone.slow or _avoids(scope))):
        taken = yield from _lease(scope, request, alone)
    if taken is None:
        looks = bool(request.lanes) and request.room > 0 and scope.since is None
        alone.goes_on(scope.now, looks=looks)
    return taken


def _avoids(scope: Scope) -> bool:
    return scope.lately is not None and scope.lately.avoids


def _lease(scope: Scope, request: Turn, alone: Alone) -> Verb[TurnAnswer | None]:
    began = scope.clock.now()
    taking = _taking(scope, request, alone)
    *_, rows = yield Last(taking)
    now = scope.clock.now()
    if scope.since is None or scope.lately is None:
        alone.looked(now, now - began)
    else:
        scope.lately.looked_and_took(now, now - began)
    if len(taking) > 1:  # else it is seen as the call ends
        alone.took(len(rows))
    if not rows:
        scope.unchanged = True
        return None
    for waiter, watched, seq, _, _, id_, fence, *_ in rows:
        if fence == 1 and not watched:
            alone.remember(id_, seq, waiter)
    # Nothing else was looked at: that is to be done as soon as the bodies had time to end.
    return TurnAnswer(leased=leases_of(scope, in_order([row[2:] for row in rows])), next_due=scope.now)


def _taking(scope: Scope, request: Turn, alone: Alone) -> list[Statement]:
    """Return what takes a call, or what picks several and takes them."""
    asked = {"lanes": list(scope.numbers(request.lanes)), "session": scope.session, "now": scope.now}
    most = min(alone.most if scope.since is None else SEVERAL, request.room)
    if scope.since is not None:
        pick = Statement("lease_few_lately", {**asked, "since": scope.since, "room": most, "most": most + 1})
    elif most > 1:
        pick = Statement("lease_few", {**asked, "room": most})
    else:
        return [Statement("lease_alone", asked)]
    return [pick, Statement("lease_few_take", {"session": scope.session, "now": scope.now})]


def _settle(scope: Scope, request: Turn, leases: list[_Lease], alone: Alone) -> Verb[TurnAnswer | None]:
    outcomes, waiter = request.outcomes, leases[0].waiter
    ends = _ends(scope, outcomes, leases)
    if waiter is not None and waiter != scope.session:
        ends.append(_tells(waiter, leases))
        scope.rung.add(waiter)
    looks, avoids = [Statement("settled_alone", {})], _avoids(scope)
    if request.lanes:
        lanes = [] if avoids or scope.since is not None else list(scope.numbers(request.lanes))
        looks.append(first_look(scope, lanes))
    replies = yield Last(ends, looks)
    ((settled,),) = replies[len(ends)]
    if settled is None:
        scope.unchanged = True
        return None
    next_due: int | None = None
    more = False
    if request.lanes:
        ((_, next_due, expired, suspects, told, ready),) = replies[-1]
        if ready:
            alone.took(len(leases) + 1)
        # Where it was not looked for calls that are ready: soon, or by a turn that looks at all.
        if scope.since is not None:
            next_due = min(next_due or LAST, scope.now + AGAIN)
        elif avoids:
            ready = True
        more = bool(expired or told or ready or (suspects and request.suspects))
    heard = outcomes if waiter == scope.session else ()
    ended = [Ended(each.id, State.SUCCEEDED, each.value, None, 1) for each in heard]
    return TurnAnswer(settled=[True] * len(leases), ended=ended, next_due=next_due, more=more)


def _ends(scope: Scope, outcomes: Sequence[Outcome], leases: list[_Lease]) -> list[Statement]:
    """Return what ends all of these, or none."""
    asked = {"session": scope.session, "now": scope.now, "waiter": leases[0].waiter}
    values = {lease.seq: text(outcome.value) for lease, outcome in zip(leases, outcomes, strict=True)}
    if len(leases) == 1:
        ((seq, value),) = values.items()
        return [Statement("settle_alone", {**asked, "seq": seq, "value": value})]
    return [Statement("settle_few", {**asked, "seqs": sorted(values), "n": len(leases), "values": values})]


def _tells(waiter: int, leases: list[_Lease]) -> Statement:
    """Return what tells their waiter of what has ended."""
    if len(leases) == 1:
        return Statement("tell_alone", {"waiter": waiter})
    return Statement("tell_few", {"waiter": waiter, "seqs": sorted(lease.seq for lease in leases)})
