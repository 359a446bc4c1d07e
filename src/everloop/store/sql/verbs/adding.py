"""Adding: calls enter, once each, whatever is repeated.

Plain roots, the bulk of all calls, take two statements and nothing else. Everything that needs to look
before it inserts (parents, re-used children, keys, callbacks) goes through `_Plan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from everloop._core.calls import State
from everloop._core.errors import StoreUnavailable
from everloop._core.policy import CRASHES
from everloop._core.records import Added, KeyRule, Lane, NewCall
from everloop.store.sql.verbs.ending import CALLBACKS, WAITS, Row, cancel_rows
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement, Step, Verb, text

#: Microseconds within which workers look by themselves: they poll once a second, or a little later.
UNASKED = 1_200_000
#: No lanes.
NO_LANES: frozenset[int] = frozenset()


def is_plain(call: NewCall) -> bool:
    """Tell whether a call is a root with nothing but arguments, priority and due time."""
    return not (
        call.parent
        or call.key
        or call.policy
        or call.callbacks
        or call.after
        or call.owned
        or call.tags
        or call.expires is not None
        or call.retry_of
        or call.crash_limit != CRASHES
        or not call.told
    )


def add(scope: Scope, calls: Sequence[NewCall]) -> Verb[list[Added]]:
    """Add calls; the answer has one item per call, in order."""
    if not calls:
        return []
    if all(map(is_plain, calls)):
        answers = yield from add_plain(scope, calls, (yield plain_looks(calls)))
        if answers is not None:
            return answers
    plan = _Plan(scope, calls)
    yield from plan.look()
    answers = [plan.decide(call) for call in calls]
    yield from plan.write()
    return answers


def add_in_haste(scope: Scope, calls: Sequence[NewCall]) -> Verb[list[Added]]:
    """Add calls as `add` does, and give up soon where another transaction is in the way."""
    yield Statement("hurry", {})
    return (yield from add(scope, calls))


def plain_looks(calls: Sequence[NewCall]) -> Step:
    """Return what has to be asked before plain roots are added: is one there already, and their numbers."""
    return [Statement("add_known", {"ids": [c.id for c in calls]}), Statement("seq_next", {"n": len(calls)})]


def groups(scope: Scope, calls: Sequence[NewCall], first: int) -> list[tuple[dict[str, Any], State]]:
    """Return the parameters of plain roots that share all but their ids, and the state that they begin in.

    What calls share travels once: nearly always, one statement adds them all. They are numbered from `first`.
    """
    now = scope.now
    alike: dict[tuple[Lane, int, int], dict[int, str]] = {}
    for n, c in enumerate(calls, first):
        kind = c.lane, -(c.priority or 0), c.due or now + c.delay
        alike.setdefault(kind, {})[n] = c.id
    return [
        (
            {
                "ids": ids,
                "lane": scope.lanes[lane],
                "priority": priority,
                "due": due,
                "waiter": scope.session,
            },
            State.SCHEDULED if due > now else State.READY,
        )
        for (lane, priority, due), ids in alike.items()
    ]


def came(scope: Scope, state: State, due: int) -> None:
    """Note that calls have come in this state: workers should look, or the next due time is another.

    If it is before they would look by themselves, or may be once the user has committed, they should, too.
    """
    scheduled = state is State.SCHEDULED
    soon = scheduled and (scope.borrowed or due < scope.now + UNASKED)
    scope.ready = scope.ready or state is State.READY or soon
    scope.scheduled = scope.scheduled or scheduled


def add_plain(
    scope: Scope, calls: Sequence[NewCall], looks: list[Any], *, start: frozenset[int] = NO_LANES
) -> Verb[list[Added] | None]:
    """Add plain roots at once; None when an id was there already and nothing was added.

    `looks` is the reply to `plain_looks(calls)`. Those of the lanes `start` that are due are leased to the
    session that asks as they are added.
    """
    now = scope.now
    known, ((first,),) = looks
    scope.pass_by(first)
    if known or len({c.id for c in calls}) < len(calls):
        return None
    for group, state in groups(scope, calls, first):
        number, priority, due = group["lane"], group["priority"], group["due"]
        if number in start and state is State.READY:
            yield Statement("add_started", {**group, "now": now})
            for seq, id_ in group["ids"].items():
                args = text(calls[seq - first].args)
                scope.started.append(
                    [seq, due, seq, id_, 1, number, args, "", 0, 0, 0, -priority, None, due, now]
                )
            continue
        came(scope, state, group["due"])
        yield Statement("add_roots", {**group, "state": state})
    yield Statement("add_root_payloads", {"args": [text(c.args) for c in calls], "first": first, "now": now})
    return [Added(c.id) for c in calls]


@dataclass(slots=True)
class _Existing:
    """A call that is there, or that this same batch is about to add."""

    id: str
    seq: int
    state: State
    app: str = ""
    fn: str = ""
    args: str = ""
    asked: bool = False  # to cancel

    @property
    def reusable(self) -> bool:
        """Whether it stands for the same child of the parent's next run."""
        return self.state is State.SUCCEEDED or not (self.state.final or self.asked)


@dataclass(slots=True)
class _Plan:
    """What one batch will write, decided call by call after a few looks."""

    scope: Scope
    calls: Sequence[NewCall]
    existing: dict[str, _Existing] = field(default_factory=dict[str, _Existing])
    parents: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    children: dict[tuple[int, str], _Existing] = field(default_factory=dict[tuple[int, str], _Existing])
    keyed: dict[tuple[str, str, str], list[_Existing]] = field(
        default_factory=dict[tuple[str, str, str], list[_Existing]]
    )
    busy: set[str] = field(default_factory=set[str])  # their keys are judged by a transaction that is open
    seq: int = 0
    rows: list[list[Any]] = field(default_factory=list[list[Any]])
    payloads: list[list[Any]] = field(default_factory=list[list[Any]])
    keys: list[list[Any]] = field(default_factory=list[list[Any]])
    watch: list[list[int]] = field(default_factory=list[list[int]])
    waits: list[int] = field(default_factory=list[int])
    ended: list[int] = field(default_factory=list[int])
    reattach: list[list[int]] = field(default_factory=list[list[int]])
    following: list[int] = field(default_factory=list[int])  # finished calls that new ones come after
    replace: list[str] = field(default_factory=list[str])

    def look(self) -> Verb[None]:
        """Read everything that the decisions need, a statement per kind."""
        calls = _with_callbacks(self.calls)
        ids = [c.id for c in calls] + [c.after for c in self.calls if c.after]
        for id_, seq, app, fn, state, args in (yield Statement("add_existing", {"ids": ids})):
            self.existing[id_] = _Existing(id_, seq, State(state), app, fn, args)
        parents = {c.parent.id for c in self.calls if c.parent}
        if parents:
            # None of those that a user's transaction adds is owned: its parent need not wait for the commit.
            seen = "add_parents_seen" if self.scope.borrowed else "add_parents"
            for row in (yield Statement(seen, {"ids": list(parents)})):
                self.parents[row[0]] = row
            yield from self._look_for_children()
        keyed = [[i, c.lane.app, c.lane.fn, c.key.value] for i, c in enumerate(calls) if c.key is not None]
        if keyed:
            busy, met = yield [
                Statement("key_lock", {"rows": keyed}),
                Statement("add_keyed", {"rows": keyed}),
            ]
            self.busy = {calls[i].id for (i,) in busy}
            for i, id_, seq, state in met:
                found = self.keyed.setdefault(_key_of(calls[i]), [])
                if all(e.seq != seq for e in found):
                    found.append(_Existing(id_, seq, State(state)))
        ((first,),) = yield Statement("seq_next", {"n": len(calls)})
        self.scope.pass_by(first)
        self.seq = first - 1

    def _look_for_children(self) -> Verb[None]:
        """Find the earlier children; a parent in its first run has none."""
        asked = {
            i: (self.parents[c.parent.id][1], c.child_key)
            for i, c in enumerate(self.calls)
            if c.parent and c.parent.fence > 1 and c.child_key and c.parent.id in self.parents
        }
        if asked:
            rows = [[i, *child] for i, child in asked.items()]
            for i, id_, seq, state, cancelling in (yield Statement("add_children", {"rows": rows})):
                self.children[asked[i]] = _Existing(id_, seq, State(state), asked=bool(cancelling))

    # -- decisions ------------------------------------------------------------------------------------

    def decide(self, call: NewCall) -> Added:
        """Answer one call, and note what has to be written."""
        if self.busy and not self.busy.isdisjoint(c.id for c in _with_callbacks([call])):
            return Added(call.id, "busy")
        parent = self.parents.get(call.parent.id) if call.parent else None
        if call.parent and (parent is None or parent[2] != "leased" or parent[3] != call.parent.fence):
            return Added(call.id, "lost")
        same = self.existing.get(call.id)
        if same is not None:
            equal = (same.app, same.fn, same.args) == (call.lane.app, call.lane.fn, text(call.args))
            return self._join(call, same, parent) if equal else Added(call.id, "refused", "id")
        if call.after is not None and call.after not in self.existing:
            return Added(call.id, "refused", "after")
        if parent is not None and call.child_key is not None:
            child = self.children.get((parent[1], call.child_key))
            if child is not None and child.reusable:
                # Its callbacks came with it: the run before this one has asked for the same.
                return self._join(msgspec.structs.replace(call, callbacks=()), child, parent)
        met = self._meet_key(call, call.key, parent) if call.key is not None else None
        return met or self._insert(call, parent)

    def _meet_key(self, call: NewCall, rule: KeyRule, parent: list[Any] | None) -> Added | None:
        """Settle a key's conflict; None when the call is to be added."""
        found = [e for e in self.keyed.get(_key_of(call), ()) if _counts(e.state, rule.among)]
        if found and rule.on_conflict == "raise":
            return Added(found[-1].id, "refused", "key")
        if found and rule.on_conflict == "join":
            return self._join(call, found[-1], parent)
        self.replace += [e.id for e in found if not e.state.final]
        return None

    def _join(self, call: NewCall, existing: _Existing, parent: list[Any] | None) -> Added:
        """Answer with a call that is there; tell this session of its end."""
        self.existing.setdefault(existing.id, existing)
        if parent is not None:
            self.reattach.append([existing.seq, parent[3], parent[1]])
        if call.told and self.scope.session is not None:
            if existing.state.final:
                self.ended.append(existing.seq)
            else:
                self.watch.append([existing.seq, WAITS])
                self.waits.append(existing.seq)
        self._add_callbacks(call, existing.id)
        return Added(existing.id, "exists")

    def _add_callbacks(self, call: NewCall, after: str) -> None:
        """Add the callbacks of a call that is there; each is a call like any other, but not answered."""
        for callback in call.callbacks:
            self.decide(msgspec.structs.replace(callback, after=after, parent=None))

    def _insert(self, call: NewCall, parent: list[Any] | None) -> Added:
        """Note a new row."""
        now = self.scope.now
        self.seq += 1
        seq = self.seq
        due = call.due or now + call.delay
        state = State.SCHEDULED if due > now else State.READY
        after = self.existing[call.after] if call.after is not None else None
        if after is not None and not after.state.final:
            state = State.WAITING
            self.watch.append([after.seq, CALLBACKS])
        elif after is not None:
            self.following.append(after.seq)
        came(self.scope, state, due)
        self.scope.returned = self.scope.returned or call.expires is not None
        priority = -call.priority if call.priority is not None else parent[4] if parent else 0
        place, root, depth = (parent[5], parent[6], parent[7] + 1) if parent else (due, seq, 0)
        lane = self.scope.lanes[call.lane]
        self.rows.append(
            [
                seq, call.id, lane, state, priority, place, root, depth, due,
                None if call.expires is None else now + call.expires,
                call.crash_limit,
                parent[1] if parent else None,
                int(call.owned), call.child_key, parent[3] if parent else 0,
                call.after,
                0,
                self.scope.session if call.told else None,
            ]
        )  # fmt: skip
        args = text(call.args) or ""
        key = call.key.value if call.key else None
        self.payloads.append([seq, args, text(call.policy), key, list(call.tags) or None, call.retry_of])
        new = _Existing(call.id, seq, state, call.lane.app, call.lane.fn, args)
        self.existing[call.id] = new
        if parent is not None and call.child_key is not None:
            self.children[parent[1], call.child_key] = new
        if key is not None:
            self.keys.append([call.lane.app, call.lane.fn, key, seq])
            self.keyed.setdefault(_key_of(call), []).append(new)
        self._add_callbacks(call, call.id)
        return Added(call.id)

    # -- writing --------------------------------------------------------------------------------------

    def write(self) -> Verb[None]:
        """Write what was decided."""
        if self.ended or self.following:
            yield from hold([*self.ended, *self.following])
        if self.rows:
            yield Statement("add_calls", {"rows": self.rows})
            yield Statement("add_payloads", {"rows": self.payloads, "now": self.scope.now})
        if self.keys:
            yield Statement("add_keys", {"rows": self.keys})
        if self.reattach:
            yield Statement("add_reattach", {"rows": self.reattach})
        for bits in (CALLBACKS, WAITS):
            rows = [w for w in self.watch if w[1] == bits]
            if rows:
                yield from self._watch(rows, bits)
        if self.waits:
            yield Statement("wait_add", {"seqs": self.waits, "session": self.scope.session})
        if self.ended and self.scope.session is not None:
            self.scope.rung.add(self.scope.session)
            yield Statement("end_tell", {"session": self.scope.session, "seqs": self.ended})
        if self.replace:
            # Last: what is replaced may have been added by this very request.
            rows = yield Statement("cancel_match", {"ids": list(dict.fromkeys(self.replace))})
            live = [r for r in map(Row.read, rows) if not r.state.final]
            yield from cancel_rows(self.scope, live, "another call with its key replaced it")

    def _watch(self, rows: list[list[int]], bits: int) -> Verb[None]:
        """Watch calls that were live when they were looked at; one may have ended since, and told nobody."""
        _, ended = yield [
            Statement("watch", {"rows": rows}),
            Statement("watch_ended", {"seqs": [seq for seq, _ in rows]}),
        ]
        late = [seq for (seq,) in ended]
        if late and bits == CALLBACKS:
            yield Statement("end_wake", {"seqs": late, "now": self.scope.now})
            self.scope.come_back()
        elif late:
            self.ended += late
            self.waits = [seq for seq in self.waits if seq not in late]


def hold(seqs: Sequence[int]) -> Verb[None]:
    """Keep finished calls from being pruned before the commit.

    Raises:
        StoreUnavailable: One has just been: what was decided does not hold any more.
    """
    found = yield Statement("keep_hold", {"seqs": list(seqs)})
    if len(found) < len(set(seqs)):
        raise StoreUnavailable("a finished call was pruned while another one was to hang on it: ask again")


def _key_of(call: NewCall) -> tuple[str, str, str]:
    return call.lane.app, call.lane.fn, call.key.value if call.key else ""


def _counts(state: State, among: str) -> bool:
    """Tell whether a call in `state` stands in the way of a key of this kind."""
    return among == "ever" or not state.final or (among == "done" and state is State.SUCCEEDED)


def lanes_of(calls: Sequence[NewCall]) -> set[Lane]:
    """Return every lane that these calls and their callbacks stand in."""
    return {c.lane for c in _with_callbacks(calls)}


def _with_callbacks(calls: Sequence[NewCall]) -> list[NewCall]:
    """Return the calls, their callbacks, and those callbacks' callbacks."""
    found: list[NewCall] = []
    for call in calls:
        found.append(call)
        if call.callbacks:
            found += _with_callbacks(call.callbacks)
    return found
