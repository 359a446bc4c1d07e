"""A store beside the oracle: each request goes to both, and everything is compared after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from everloop._core.calls import State
from everloop._core.clock import ManualClock
from everloop._core.keeping import Pruning
from everloop._core.records import (
    Added,
    CallFilter,
    Ended,
    Lane,
    NewCall,
    Parent,
    SessionInfo,
    Snapshot,
    Turn,
    TurnAnswer,
)
from everloop.store.protocol import Store
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.invariants import INVARIANTS, Log
from everloop.testing.conformance.lives import Look
from everloop.testing.conformance.oracle import Expected, Oracle


class SideBySide:
    """The verbs, each asked of a store and of the oracle.

    Attributes:
        calls: What was stored when it was last looked at.
        doing: The last request, for the note on a failure.
        met: What happened on the way, and how often.
    """

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self.oracle = Oracle()
        self.log = Log()
        self.calls: dict[str, Snapshot] = {}
        self.doing = "nothing yet"
        self.met: Counter[str] = Counter()
        self._wanted: dict[str, tuple[Look, Snapshot]] = {}  # as long as nothing happens to a call

    async def look(self) -> None:
        """Compare all that is stored, and try the invariants."""
        ids = list(self.oracle.lives)
        before, self.calls = self.calls, {}
        for id, seen in zip(ids, await self.store.get(ids), strict=True):
            known = self._wanted.get(id)
            wanted = self._wanted_of(id)
            if seen != wanted:
                same(seen, wanted, f"what is stored of {id}")
            # The very object as long as nothing happens to the call: invariants pass over what is the same.
            untouched = id in before and known is self._wanted[id]
            if seen is not None:
                self.calls[id] = before[id] if untouched else seen
        for invariant in INVARIANTS:
            invariant(before, self.calls, self.log)

    def _wanted_of(self, id: str) -> Snapshot:
        now = self.oracle.lives[id].now
        known = self._wanted.get(id)
        if known is None or known[0] is not now:
            known = self._wanted[id] = now, self.oracle.snapshot(id)
        return known[1]

    # -- sessions ---------------------------------------------------------------------------------

    async def open_session(self, lease: int, lanes: tuple[Lane, ...] = ()) -> int:
        self.doing = f"open_session({lease})"
        info = SessionInfo(app="a", kind="worker", host="here", pid=1, lanes=lanes)
        session = await self.store.open_session(info, lease)
        holds(session not in self.oracle.ever, f"the session number {session} is new")
        self.oracle.open_session(session, self.clock.now(), lease)
        self.log.open.add(session)
        return session

    async def renew(self, session: int, lease: int) -> None:
        self.doing = f"renew({session}, {lease})"
        wanted = self.oracle.renew(session, self.clock.now(), lease)
        same(await self.store.renew(session, lease), wanted, "the answer to renew")

    async def close_session(self, session: int) -> None:
        self.doing = f"close_session({session})"
        self.oracle.close_session(session, self.clock.now())
        await self.store.close_session(session)
        self.log.open.discard(session)

    async def reap(self) -> None:
        self.doing = "reap()"
        same(await self.store.reap(), self.oracle.reap(self.clock.now()), "the number of reaped sessions")
        self.log.open &= self.oracle.until.keys()

    # -- requests ---------------------------------------------------------------------------------

    async def add(self, session: int | None, calls: Sequence[NewCall]) -> list[Added]:
        self.doing = f"add({session}, {calls})"
        wanted = self.oracle.add(session, calls, self.clock.now())
        added = await self.store.add(session, calls)
        same(added, wanted, "the answer to add")
        for call, answer in zip(calls, added, strict=True):
            self.log.note_added(call, answer)
        self.met.update(f"{answer.status} {answer.reason}".strip() for answer in added)
        return added

    async def wait(self, session: int, ids: Sequence[str]) -> None:
        self.doing = f"wait({session}, {ids})"
        wanted = self.oracle.wait(session, ids)
        same(await self.store.wait(session, ids), wanted, "the answer to wait")

    async def cancel(self, ids: Sequence[str], message: str, parents: Sequence[Parent | None] = ()) -> None:
        self.doing = f"cancel({ids}, {message!r}, {parents})"
        wanted = self.oracle.cancel(ids, message, self.clock.now(), parents)
        answers = await self.store.cancel(ids, message, parents)
        same([tuple(answer) for answer in answers], wanted, "the answer to cancel")
        self.met.update(
            "a parent cancelled" for a, by in zip(answers, parents, strict=False) if by and not a.lost
        )
        self.met.update("a parent cancelled too late" for answer in answers if answer.lost)

    async def turn(self, session: int, turn: Turn) -> TurnAnswer:
        self.doing = f"turn({session}, {turn})"
        wanted = self.oracle.turn(session, turn, self.clock.now())
        answer = await self.store.turn(session, turn)
        same(answer.settled, wanted.settled, "settled")
        same(answer.added, wanted.added, "added")
        leased = [(lease.id, lease.fence) for lease in answer.leased]
        same(leased, wanted.leased, "leased")
        same(answer.next_due, wanted.next_due, "next_due")
        self.log.note_turn(session, turn, answer.settled, answer.added, leased)
        self.met.update(
            f"settled by {o.event}" for o, done in zip(turn.outcomes, answer.settled, strict=True) if done
        )
        self.met.update(f"{added.status} {added.reason}".strip() for added in answer.added)
        self._compare_inbox(session, answer, wanted)
        return answer

    def _compare_inbox(self, session: int, answer: TurnAnswer, wanted: Expected) -> None:
        ended = [end.id for end in answer.ended]
        same(len(ended), len(set(ended)), "ends in the answer, and different ones")
        holds(wanted.ended <= {*ended} or answer.more, f"of {wanted.ended}, {ended} are told")
        # What a session that is gone hears of its own settlements does not matter, as long as it is true.
        gone = session not in self.oracle.until
        holds(gone or {*ended} <= wanted.may_end, f"of {ended}, only {wanted.may_end} are to be told")
        for end in answer.ended:
            now = self.oracle.lives[end.id].now
            state = State(now.state)
            same(end, Ended(end.id, state, now.value, now.error, now.attempt), "what is told of an end")
        cancels = [(cancel.id, cancel.fence) for cancel in answer.cancels]
        same(len(cancels), len(set(cancels)), "cancellations in the answer, and different ones")
        holds(wanted.cancels <= {*cancels}, f"of {wanted.cancels}, {cancels} are told")
        holds({*cancels} <= wanted.may_cancel, f"of {cancels}, only {wanted.may_cancel} are to be told")
        for cancel in answer.cancels:
            same(cancel.message, self.oracle.lives[cancel.id].now.asked, "the message of a cancellation")
        self.oracle.handed_out(session, {*ended}, {*cancels})

    # -- keeping ----------------------------------------------------------------------------------

    async def prune(self, request: Pruning) -> set[str]:
        """Let a whole sweep go by; return the ids that are free again."""
        self.doing = f"prune({request})"
        gone, worn = self.oracle.prune(request, self.clock.now())
        calls = results = 0
        going_on: Pruning | None = request
        while going_on is not None:
            done = await self.store.prune(going_on)
            calls, results, going_on = calls + done.calls, results + done.results, done.next
        same((calls, results), (len(gone), len(worn)), f"what is pruned: {gone}, and the values of {worn}")
        ids = list(gone)
        same(await self.store.get(ids), [None] * len(ids), f"what is left of {ids}")
        self.log.forget(gone)
        self._wanted.clear()  # who has lost its parent looks different, and nothing has happened to it
        self.calls = {
            id: msgspec.structs.replace(call, parent=None) if call.parent in gone else call
            for id, call in self.calls.items()
            if id not in gone
        }
        for id in worn:
            self.calls[id] = msgspec.structs.replace(self.calls[id], value=None)
        self.met.update({"pruned": calls, "value pruned": results})
        return gone

    # -- reads ------------------------------------------------------------------------------------

    async def find(self, filter: CallFilter) -> None:
        """Compare a listing with what was last looked at."""
        self.doing = f"find({filter})"
        shown = list(reversed(self.calls.values()))
        if filter.before is not None:
            ids = [call.id for call in shown]
            shown = shown[ids.index(filter.before) + 1 :] if filter.before in ids else []
        wanted = [call for call in shown if _fits(call, filter)][: filter.limit]
        same(await self.store.find(filter), wanted, "the answer to find")

    async def runs(self, ids: Sequence[str]) -> None:
        """Compare how leases ended."""
        self.doing = f"runs({ids})"
        for id, seen in zip(ids, await self.store.runs(ids), strict=True):
            wanted = self.oracle.runs(id)
            same([tuple(run) for run in seen], wanted, f"the runs of {id}")
            self.met.update(f"a run {run.kind}" for run in seen)

    async def counts(self, app: str | None) -> None:
        """Compare the numbers of calls with what was last looked at."""
        self.doing = f"counts({app!r})"
        counted = Counter(call.state.value for call in self.calls.values() if app in (None, call.lane.app))
        same(await self.store.counts(app), {state.value: counted[state.value] for state in State}, "counts")


def _fits(call: Snapshot, filter: CallFilter) -> bool:
    wanted = {"app": filter.app, "queue": filter.queue, "fn": filter.fn}
    if any(value is not None and getattr(call.lane, name) != value for name, value in wanted.items()):
        return False
    if filter.states and call.state not in filter.states:
        return False
    if filter.parent is not None and call.parent != filter.parent:
        return False
    return filter.tag is None or filter.tag in call.tags
