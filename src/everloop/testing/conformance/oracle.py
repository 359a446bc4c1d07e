"""The oracle: a second, independent telling of what a store must answer.

It shares no code and no table with the stores. A call is the list of facts that happened to it, and
everything else is computed from them (`lives`). What hangs on an end is not followed call by call, as a
store does it, but stated as rules that hold again after every request (`_let_rules_hold`): a store and
the oracle can then hardly be wrong in the same way.

States and events are literal words here on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from everloop._core.keeping import Pruning
from everloop._core.records import Added, Lane, NewCall, Outcome, Parent, Snapshot, Turn
from everloop.testing.conformance.lives import LIVE, Life, Like, runs


@dataclass(frozen=True)
class Expected:
    """What a turn must answer.

    An end that happens in the very turn may be told in it or in the session's next one: `ended` and
    `cancels` say what must be told, `may_end` and `may_cancel` what may be.
    """

    settled: list[bool]
    added: list[Added]
    leased: list[tuple[str, int]]
    next_due: int | None
    ended: set[str]
    may_end: set[str]
    cancels: set[tuple[str, int]]
    may_cancel: set[tuple[str, int]]


class Oracle:
    """Answers every verb from the facts; sessions' numbers are the store's."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.until: dict[int, int] = {}
        self.ever: set[int] = set()  # every session that there was
        self._born = 0
        self._sweeps: dict[str, int] = {}
        self._waiting: set[tuple[int, str]] = set()
        self._mail: dict[int, set[str]] = {}
        self._asks: dict[int, set[tuple[str, int]]] = {}

    # -- sessions ---------------------------------------------------------------------------------

    def open_session(self, session: int, at: int, lease: int) -> None:
        self.until[session] = at + lease
        self.ever.add(session)
        self._mail[session], self._asks[session] = set(), set()

    def renew(self, session: int, at: int, lease: int) -> bool:
        if session not in self.until:
            return False
        self.until[session] = at + lease
        return True

    def close_session(self, session: int, at: int) -> None:
        self._leave({session}, "given back", at)
        self._forget({session})

    def reap(self, at: int) -> int:
        dead = {session for session, until in self.until.items() if until <= at}
        self._leave(dead, "worker died", at)
        self._forget(dead)
        return len(dead)

    def _leave(self, sessions: set[int], word: str, at: int, but: Sequence[str] = ()) -> None:
        for id, life in self.lives.items():
            if life.now.state == "leased" and life.now.session in sessions and id not in but:
                life.add(word, at)
        self._let_rules_hold(at)

    def _forget(self, sessions: set[int]) -> None:
        for session in sessions & self.until.keys():
            del self.until[session], self._mail[session], self._asks[session]

    # -- requests ---------------------------------------------------------------------------------

    def turn(self, session: int, turn: Turn, at: int) -> Expected:
        old_mail, old_asks = set(self._mail.get(session, ())), set(self._asks.get(session, ()))
        for p in turn.progress:
            if self._holds(p.id, p.fence):
                self.lives[p.id].add("progress", at, (p.done, p.total, p.note))
        added = self.add(session, turn.adds, at)
        settled = [self._settle(outcome, at) for outcome in turn.outcomes]
        self._let_rules_hold(at)
        if turn.holding is not None:
            self._leave({session}, "given back", at, but=turn.holding)
        leased: list[tuple[str, int]] = []
        if turn.lanes:
            self._let_time_pass(at)
            leased = self._lease(session, turn, at)
        due = [life.now.due for life in self.lives.values() if life.now.state == "scheduled"]
        current = {ask for ask in self._asks.get(session, ()) if self._holds(*ask)}
        return Expected(
            settled=settled,
            added=added,
            leased=leased,
            next_due=min(due, default=None) if turn.lanes else None,
            ended=old_mail,
            may_end=set(self._mail.get(session, ())),
            cancels=old_asks & current,
            may_cancel=current,
        )

    def handed_out(self, session: int, ended: set[str], cancels: set[tuple[str, int]]) -> None:
        """Note what the store's answer told the session."""
        if session in self.until:
            self._mail[session] -= ended
            self._asks[session] = {ask for ask in self._asks[session] - cancels if self._holds(*ask)}

    def add(self, session: int | None, calls: Sequence[NewCall], at: int) -> list[Added]:
        replaced: list[Life] = []
        answers = [self._add(session, call, at, replaced) for call in calls]
        self._cancel(replaced, Like(""), at)
        self._let_rules_hold(at)
        return answers

    def wait(self, session: int, ids: Sequence[str]) -> list[str]:
        for id in ids:
            if id in self.lives:
                self._inform(session, id)
        return [id for id in ids if id not in self.lives]

    def cancel(
        self, ids: Sequence[str], message: str, at: int, parents: Sequence[Parent | None] = ()
    ) -> list[tuple[str, str | None, bool, bool]]:
        """Cancel calls, but not for a parent that has been leased anew or put back since, or is not there."""
        by = list(parents) or [None] * len(ids)
        found = {id: self.lives[id].now.state for id in ids if id in self.lives}
        late = [
            id in found and parent is not None and not self._is_fence(parent)
            for id, parent in zip(ids, by, strict=True)
        ]
        self._cancel(
            [self.lives[id] for id, no in zip(ids, late, strict=True) if id in found and not no], message, at
        )
        self._let_rules_hold(at)
        answers: list[tuple[str, str | None, bool, bool]] = []
        for id, no in zip(ids, late, strict=True):
            state = found[id] if no else self.lives[id].now.state if id in found else None
            answers.append((id, state, state == "leased" and not no, no))
        return answers

    def _is_fence(self, parent: Parent) -> bool:
        return parent.id in self.lives and self.lives[parent.id].now.fence == parent.fence

    # -- keeping ----------------------------------------------------------------------------------

    def prune(self, request: Pruning, at: int) -> tuple[set[str], set[str]]:
        """Forget what is kept for too long; return whose calls and whose values are gone."""
        if {request.calls, request.failed, request.results, request.logs, request.count} == {None}:
            return set(), set()
        if at - self._sweeps.get(request.app, at - request.every) < request.every:
            return set(), set()
        self._sweeps[request.app] = at
        ended = self._ended(request.app, at)
        newest = sorted(ended, key=lambda life: life.number, reverse=True)
        surplus = set(newest) if request.count is None else set(newest[request.count :])
        old = {
            life
            for life, age in ended.items()
            if _reached(age, request.calls if life.now.state == "succeeded" else request.failed)
            or (request.count is not None and life in surplus and age >= 60_000_000)
        }
        free = {life for life in old if not self._is_needed(life)}
        gone = {life for life in free if self._root(life).pruned or self._root(life) in free}
        worn = {
            life
            for life, age in ended.items()
            if life not in old and life.now.value is not None and _reached(age, request.results)
            if not self._is_needed(life) and (self._root(life).pruned or not self._root(life).now.live)
        }
        for life in gone:
            life.pruned = True
            del self.lives[life.birth.id]
        for life in worn:
            life.add("value dropped", at)
        return {life.birth.id for life in gone}, {life.birth.id for life in worn}

    def _ended(self, app: str, at: int) -> dict[Life, int]:
        """Return the finished calls of an app, and how long ago each ended."""
        mine = (life for life in self.lives.values() if life.birth.lane.app == app)
        return {life: at - life.now.ended for life in mine if life.now.ended is not None}

    def _is_needed(self, life: Life) -> bool:
        """Tell whether a live parent or callback, or a session that has not been told yet, may need it."""
        if life.parent is not None and life.parent.now.live:
            return True
        if any(other.birth.after == life.birth.id and other.now.live for other in self.lives.values()):
            return True
        told = {id for mail in self._mail.values() for id in mail}
        asked = {id for asks in self._asks.values() for id, _ in asks}
        return life.birth.id in told | asked

    # -- rules ------------------------------------------------------------------------------------

    def _let_rules_hold(self, at: int) -> None:
        """Follow the ends until every rule holds.

        * nothing waits for a call that has ended;
        * no owned call lives, unasked to cancel, whose parent ended from outside, or ended without
          having asked for it in its last run;
        * no session still waits to be told of a call that has ended.
        """
        while self._wake(at) or self._cancel(self._unwanted(), Like(""), at):
            pass
        for session, id in list(self._waiting):
            if not self.lives[id].now.live:
                self._waiting.discard((session, id))
                self._inform(session, id)

    def _wake(self, at: int) -> bool:
        free = [
            life
            for life in self.lives.values()
            if life.now.state == "waiting" and not self.lives[str(life.birth.after)].now.live
        ]
        for life in free:
            life.add("awaited call ended", at)
        return bool(free)

    def _unwanted(self) -> list[Life]:
        found: list[Life] = []
        for life in self.lives.values():
            parent = life.parent
            if parent is None or not life.birth.owned or parent.now.live or not life.now.live:
                continue
            if parent.now.outside or life.now.wanted < parent.now.fence:
                found.append(life)
        return found

    def _cancel(self, lives: Iterable[Life], message: Any, at: int) -> bool:
        """Cancel what lives; tell whether anything changed."""
        changed = False
        for life in lives:
            if life.now.state == "leased" and life.now.asked is None and life.now.session is not None:
                life.add("asked to cancel", at, message)
                self._asks[life.now.session].add((life.birth.id, life.now.fence))
                changed = True
            elif life.now.state in ("waiting", "scheduled", "ready"):
                life.add("cancelled", at)
                changed = True
        return changed

    def _let_time_pass(self, at: int) -> None:
        for life in self.lives.values():
            expires = None if life.birth.expires is None else life.born + life.birth.expires
            if life.now.state in ("waiting", "scheduled", "ready") and expires is not None and expires <= at:
                life.add("expired", at)
        self._let_rules_hold(at)
        for life in self.lives.values():
            if life.now.state == "scheduled" and life.now.due <= at:
                life.add("fell due", at)

    # -- parts of a turn --------------------------------------------------------------------------

    def _holds(self, id: str, fence: int) -> bool:
        return id in self.lives and (self.lives[id].now.state, self.lives[id].now.fence) == ("leased", fence)

    def _settle(self, outcome: Outcome, at: int) -> bool:
        current = self._holds(outcome.id, outcome.fence)
        if current:
            self.lives[outcome.id].add("settled", at, outcome)
        return current

    def _lease(self, session: int, turn: Turn, at: int) -> list[tuple[str, int]]:
        if session not in self.until:
            return []
        line = [
            life
            for life in self.lives.values()
            if life.now.state == "ready"
            and life.birth.lane in turn.lanes
            and (turn.roots or life.birth.parent is not None)
        ]
        line.sort(key=lambda life: life.number)
        line.sort(key=self.depth, reverse=True)
        line.sort(key=lambda life: self._root(life).number)
        line.sort(key=self._place)
        line.sort(key=self.priority, reverse=True)
        suspects = [life for life in line if life.now.crashes >= 2]
        for life in suspects[1 if turn.suspects else 0 :]:
            line.remove(life)
        taken = line[: max(turn.room, 0)]
        for life in taken:
            life.add("leased", at, session)
        return [(life.birth.id, life.now.fence) for life in taken]

    def _add(self, session: int | None, call: NewCall, at: int, replaced: list[Life]) -> Added:
        if call.parent and not self._holds(call.parent.id, call.parent.fence):
            return Added(call.id, "lost")
        there = self.lives.get(call.id)
        if there and _identity(there.birth) != _identity(call):
            return Added(call.id, "refused", "id")
        if not there and call.after and call.after not in self.lives:
            return Added(call.id, "refused", "after")
        child = None if there else self._same_child(call)
        there = there or child
        if not there and call.key:
            rivals = self._newest_first(lambda other: self._rivals(other, call))
            if rivals and call.key.on_conflict == "raise":
                return Added(rivals[0].birth.id, "refused", "key")
            if rivals and call.key.on_conflict == "join":
                there = rivals[0]
            replaced += [] if there else rivals
        life = there or self._give_birth(call, at)
        if call.parent and life.parent is self.lives[call.parent.id]:
            life.add("wanted", at, call.parent.fence)
        if call.told and session is not None:
            self._inform(session, life.birth.id)
        for callback in () if child else call.callbacks:
            follower = msgspec.structs.replace(callback, after=life.birth.id, parent=None)
            self._add(session, follower, at, replaced)
        return Added(life.birth.id, "exists" if there else "added")

    def _give_birth(self, call: NewCall, at: int) -> Life:
        parent = self.lives[call.parent.id] if call.parent else None
        life = self.lives[call.id] = Life(self._born, call, at, parent)
        self._born += 1
        life.add("born", at, bool(call.after and self.lives[call.after].now.live))
        return life

    def _same_child(self, call: NewCall) -> Life | None:
        def is_it(other: Life) -> bool:
            related = call.parent is not None and other.parent is self.lives[call.parent.id]
            return related and call.child_key is not None and other.birth.child_key == call.child_key

        for newest in self._newest_first(is_it)[:1]:
            if newest.now.state == "succeeded" or (newest.now.state in LIVE and newest.now.asked is None):
                return newest
        return None

    def _rivals(self, other: Life, call: NewCall) -> bool:
        if not other.birth.key or not call.key or other.birth.key.value != call.key.value:
            return False
        counted = {"live": LIVE, "done": (*LIVE, "succeeded")}.get(call.key.among)
        same_scope = _scope(other.birth.lane) == _scope(call.lane)
        return same_scope and (counted is None or other.now.state in counted)

    def _newest_first(self, wanted: Callable[[Life], bool]) -> list[Life]:
        return [life for life in reversed(list(self.lives.values())) if wanted(life)]

    def _inform(self, session: int, id: str) -> None:
        if session in self.until:
            if self.lives[id].now.live:
                self._waiting.add((session, id))
            else:
                self._mail[session].add(id)

    # -- what follows from birth ------------------------------------------------------------------

    def _root(self, life: Life) -> Life:
        parent = life.parent
        return life if parent is None else self._root(parent)

    def _place(self, life: Life) -> int:
        root = self._root(life)
        return root.birth.due or root.born + root.birth.delay

    def depth(self, life: Life) -> int:
        parent = life.parent
        return 0 if parent is None else self.depth(parent) + 1

    def priority(self, life: Life) -> int:
        if life.birth.priority is not None:
            return life.birth.priority
        parent = life.parent
        return 0 if parent is None else self.priority(parent)

    def snapshot(self, id: str) -> Snapshot:
        """Return what a store must show of a call."""
        life = self.lives[id]
        birth, now = life.birth, life.now
        fields: dict[str, Any] = {
            **{name: getattr(birth, name) for name in ("lane", "args", "policy", "owned", "after", "tags")},
            **{name: getattr(now, name) for name in ("state", "due", "started", "ended", "fence", "attempt")},
            **{name: getattr(now, name) for name in ("crashes", "session", "value", "error", "progress")},
        }
        return Snapshot(
            id=id,
            priority=self.priority(life),
            created=life.born,
            crash_limit=birth.crash_limit,
            expires=None if birth.expires is None else life.born + birth.expires,
            depth=self.depth(life),
            parent=life.parent.birth.id if life.parent and not life.parent.pruned else None,
            key=birth.key.value if birth.key else None,
            retry_of=birth.retry_of,
            cancel_asked=now.asked,
            **fields,
        )

    def runs(self, id: str) -> list[Any]:
        """Return what a store must tell of a call's runs; every session is here, in process 1."""
        life = self.lives.get(id)
        return [] if life is None else [(*run, "here", 1) for run in runs(life.birth, life.facts)]


def _scope(lane: Lane) -> tuple[str, str]:
    return lane.app, lane.fn


def _reached(age: int, limit: int | None) -> bool:
    return limit is not None and age >= limit


def _identity(call: NewCall) -> tuple[str, str, bytes]:
    return call.lane.app, call.lane.fn, call.args
