"""What is true of every store at every instant, whatever was asked of it.

Each invariant is one function over what the store showed before and after a request, and what it has
answered so far. They need no oracle: they hold for a store under any load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from everloop._core.calls import Event, State
from everloop._core.records import Added, NewCall, Outcome, Snapshot, Turn
from everloop.testing.conformance.expect import holds, same

Calls = Mapping[str, Snapshot]


@dataclass
class Log:
    """What a store has answered so far.

    Attributes:
        acknowledged: The ids of the calls that it said it has.
        crash_limits: Of the calls that it said it added.
        leases: Which session was given which (id, fence).
        given: The fences of the leases of each call, in the order in which they were given.
        open: Sessions that were opened, and not yet closed or reaped.
        settled: The outcomes that were answered True, by id.
        asked: The fence under which a parent last asked for a child, by the ids of both.
    """

    acknowledged: set[str] = field(default_factory=set[str])
    crash_limits: dict[str, int] = field(default_factory=dict[str, int])
    leases: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    given: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    open: set[int] = field(default_factory=set[int])
    settled: dict[str, list[Outcome]] = field(default_factory=dict[str, list[Outcome]])
    asked: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    def note_added(self, call: NewCall, answer: Added) -> None:
        """Note the answer to adding `call`."""
        if answer.status == "added":
            self.crash_limits[answer.id] = call.crash_limit
        if answer.status in ("added", "exists"):
            self.acknowledged.add(answer.id)
            if call.parent is not None:
                self.asked[call.parent.id, answer.id] = call.parent.fence

    def note_turn(
        self,
        session: int,
        turn: Turn,
        settled: Sequence[bool | None],
        added: Sequence[Added],
        leased: Sequence[tuple[str, int]],
    ) -> None:
        """Note the answer to a turn."""
        for outcome, done in zip(turn.outcomes, settled, strict=True):
            if done:
                self.settled.setdefault(outcome.id, []).append(outcome)
        for call, answer in zip(turn.adds, added, strict=True):
            self.note_added(call, answer)
        for lease in leased:
            self.note_lease(session, *lease)

    def forget(self, ids: set[str]) -> None:
        """Note that these calls were pruned: their ids are free again, and so are their fences."""
        self.acknowledged -= ids
        self.leases = {lease: session for lease, session in self.leases.items() if lease[0] not in ids}
        self.asked = {pair: fence for pair, fence in self.asked.items() if not ids.intersection(pair)}
        for id in ids:
            self.crash_limits.pop(id, None)
            self.settled.pop(id, None)

    def note_lease(self, session: int, id: str, fence: int) -> None:
        """Note a lease, which must be greater than every earlier one of the call."""
        earlier = self.given.setdefault(id, [])
        holds(
            fence > max(earlier, default=0), f"I3: the lease of {id} at {fence} is after those at {earlier}"
        )
        earlier.append(fence)
        self.leases[id, fence] = session


def no_loss(before: Calls, after: Calls, log: Log) -> None:
    """I1: every acknowledged call is there, in one state, and none that was there is gone."""
    lost = (log.acknowledged | before.keys()) - after.keys()
    holds(not lost, f"I1: {', '.join(sorted(lost))} is not lost")


def one_lease(before: Calls, after: Calls, log: Log) -> None:
    """I2: a leased call is leased by the one open session that was given its current fence."""
    for id, call in after.items():
        if call.state is State.LEASED:
            same(log.leases.get((id, call.fence)), call.session, f"I2: the holder of {id} at {call.fence}")
            holds(call.session in log.open, f"I2: session {call.session} that holds {id} is open")
        elif call is not before.get(id):
            final = call.state.final
            holds(call.session is None or final, f"I2: {id} is {call.state} and belongs to no session")


def fences_grow(before: Calls, after: Calls, _log: Log) -> None:
    """I3: a fence never shrinks, and grows whenever a lease begins or is taken away."""
    for id, old in before.items():
        new = after[id]
        if new is old:
            continue
        holds(new.fence >= old.fence, f"I3: the fence of {id} does not shrink")
        by_body = old.state is State.LEASED and new.state.final
        moved = (old.state is State.LEASED) != (new.state is State.LEASED) and not by_body
        holds(
            new.fence > old.fence or not moved, f"I3: the fence of {id} grows from {old.state} to {new.state}"
        )


def ends_are_final(before: Calls, after: Calls, _log: Log) -> None:
    """I4: nothing about a call that has ended ever changes."""
    for id, old in before.items():
        if old.state.final and after[id] is not old:
            same(after[id], old, f"I4: the ended call {id}")


def attempts(_before: Calls, after: Calls, log: Log) -> None:
    """I6: attempts are the accepted ends of runs; crashes are counted apart, up to the limit."""
    for id, call in after.items():
        ran = [o for o in log.settled.get(id, ()) if o.event not in (Event.RELEASE, Event.REAP)]
        if call.attempt != len(ran):
            same(call.attempt, len(ran), f"I6: the attempts of {id}")
        enough = call.attempt + call.crashes <= len(log.given.get(id, ()))
        if not enough:
            holds(enough, f"I6: {id} had a lease for each attempt and crash")
        if not call.state.final and call.crashes > log.crash_limits.get(id, call.crashes):
            holds(call.state.final, f"I6: {id} crashed {call.crashes} times and has ended")


def keys(_before: Calls, after: Calls, _log: Log) -> None:
    """I8: one live call per key, beside those that are being cancelled for a newer one."""
    held = Counter(
        (call.lane.app, call.lane.fn, call.key)
        for call in after.values()
        if call.key is not None and not call.state.final and call.cancel_asked is None
    )
    for key, count in held.items():
        same(count, 1, f"I8: live calls with the key {key}")


def children(_before: Calls, after: Calls, log: Log) -> None:
    """I14: an owned child outlives its parent only while it is told to stop, or was asked for last."""
    for id, child in after.items():
        parent = after.get(child.parent or "")
        if parent is None or not child.owned or not parent.state.final:
            continue
        if child.state.final or child.cancel_asked is not None:
            continue
        ends = log.settled.get(parent.id, [])
        by_body = bool(ends) and ends[-1].fence == parent.fence
        holds(by_body, f"I14: {id} lives on, so its parent {parent.id} ended by its body")
        same(
            log.asked.get((parent.id, id)),
            parent.fence,
            f"I14: {id} lives on, so the last run asked for it; its fence",
        )


#: Every invariant that is judged by looking; I5 and I7 are judged by asking again (see `walk`).
INVARIANTS: tuple[Callable[[Calls, Calls, Log], None], ...] = (
    no_loss,
    one_lease,
    fences_grow,
    ends_are_final,
    attempts,
    keys,
    children,
)
