"""What Hypothesis draws: few small numbers for each request, so that it is quick and shrinks well.

A shape names its calls, leases and sessions by their place from the end of what is known so far; `Minting`
makes requests of them.
"""

from __future__ import annotations

from itertools import product, starmap
from typing import Any, NamedTuple

import msgspec
from hypothesis import strategies as st

from everloop._core.calls import Event
from everloop._core.records import KeyRule, Lane, NewCall, Outcome, Parent, Progress
from everloop.testing.conformance.scene import SECOND, uuid

#: Two that most calls stand in, and one in another app, queue and function.
LANES = (Lane("a", "p", "f"), Lane("a", "p", "g"), Lane("b", "q", "h"))
ENDS = (Event.SUCCEED, Event.RETRY, Event.FAIL, Event.RELEASE, Event.CANCEL)
DELAYS = (0, 0, SECOND // 2, 3 * SECOND)

#: What a call is, beside its id, lane and arguments.
PLAIN: dict[str, dict[str, Any]] = {
    "plain": {},
    "urgent": {"priority": 2},
    "patient": {"priority": -1, "told": False},
    "delayed": {"delay": 3 * SECOND},
    "at a moment": {"due": "soon"},
    "expiring": {"expires": 2 * SECOND},
    "expiring before it is due": {"expires": 2 * SECOND, "delay": 3 * SECOND},
    "fragile": {"crash_limit": 0},
    "less fragile": {"crash_limit": 2, "tags": ("t", "u"), "policy": b"{}"},
    "again": {"id": "known"},
    "in conflict": {"id": "known", "args": b"jother"},
    "after another": {"after": "known"},
    "followed": {"callbacks": 1},
    "followed twice": {"callbacks": 2, "retry_of": uuid(1)},
    "key joins": {"key": KeyRule("x")},
    "key joins what is done": {"key": KeyRule("x", "done"), "callbacks": 1},
    "key is refused": {"key": KeyRule("x", "live", "raise")},
    "key is refused for ever": {"key": KeyRule("y", "ever", "raise")},
    "key replaces": {"key": KeyRule("x", "live", "replace")},
}
#: The same of calls that a running one adds.
CHILDREN: dict[str, dict[str, Any]] = {
    "owned": {"owned": True, "child_key": "new"},
    "asked for again": {"owned": True, "child_key": "known"},
    "owned and delayed": {"owned": True, "child_key": "new", "delay": 3 * SECOND},
    "anonymous": {"owned": True},
    "detached": {"child_key": "new", "told": False},
    "keyed child": {"owned": True, "child_key": "new", "key": KeyRule("y")},
    "followed child": {"owned": True, "child_key": "known", "callbacks": 1},
}
KINDS = {**PLAIN, **CHILDREN}


class CallShape(NamedTuple):
    """A call to add; `which` names the known call, or the lease of the parent, that it is about."""

    kind: str
    lane: int
    which: int


class EndShape(NamedTuple):
    """The end of a lease."""

    event: Event
    which: int
    delay: int


RECENT = (0, 1, 2, 3, 5, 8)
LEASES = st.sampled_from(RECENT)
# One draw for each shape, out of all that there are: to draw each field by itself takes longer than a step.
CALLS = tuple(starmap(CallShape, product([*KINDS, *CHILDREN], (0, 0, 1, 2), range(10))))
BATCHES = st.lists(st.sampled_from(CALLS), min_size=1, max_size=4)
CALM_ENDS = tuple(starmap(EndShape, product(ENDS, RECENT, (0,) * 6)))
LATE_ENDS = tuple(starmap(EndShape, product(ENDS[1:4], RECENT, DELAYS[2:] * 5)))
OUTCOMES = st.lists(st.sampled_from((*CALM_ENDS, *LATE_ENDS)), min_size=1, max_size=4)


class Minting:
    """Makes requests out of shapes.

    Attributes:
        ids: Every id that was used so far, added or not.
        births: The calls that they were used for first.
        leases: Every (id, fence) that somebody was given, or that a store gave and nobody heard of.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.births: dict[str, NewCall] = {}
        self.leases: list[tuple[str, int]] = []
        self._child_keys: dict[str, list[str]] = {}

    def lease(self, which: int) -> tuple[str, int] | None:
        """Return a lease by its place from the end; the older ones are stale."""
        return self.leases[-1 - which % len(self.leases)] if self.leases else None

    def id(self, which: int) -> str:
        """Return a known id by its place from the end, or one that nobody has used."""
        return self.ids[-1 - which % len(self.ids)] if self.ids else uuid(0xFFFF)

    def calls(self, shapes: list[CallShape], now: int) -> list[NewCall]:
        return [self._call(shape, now) for shape in shapes]

    def outcomes(self, shapes: list[EndShape]) -> list[Outcome]:
        """Return an outcome for each; without a lease there is nothing to end."""
        ends: list[Outcome] = []
        for n, (event, which, delay) in enumerate(shapes):
            lease = self.lease(which)
            if lease is not None:
                value = b"jvalue" if event is Event.SUCCEED and n % 2 else None
                error = b"jerror" if event is not Event.SUCCEED and n % 2 == 0 else None
                ends.append(Outcome(*lease, event, value=value, error=error, delay=delay))
        return ends

    def progress(self, which: int) -> list[Progress]:
        lease = self.lease(which)
        return [Progress(*lease, 0.5 * which, None, "so far")] if lease is not None else []

    def _call(self, shape: CallShape, now: int) -> NewCall:
        fields = dict(KINDS[shape.kind])
        if fields.get("id") == "known" and self.ids:
            born = self.births[self.id(shape.which)]
            return msgspec.structs.replace(born, **{n: v for n, v in fields.items() if n == "args"})
        lane = LANES[shape.lane]
        parent = self.lease(shape.which) if shape.kind in CHILDREN else None
        if parent is not None:
            fields["parent"] = Parent(*parent)
            fields["child_key"] = self._child_key(*parent, fields.get("child_key"))
        else:
            fields.pop("child_key", None)
            fields.pop("owned", None)
        if fields.get("after"):
            fields["after"] = self.id(shape.which)
        if fields.get("due"):
            fields["due"] = now + SECOND
        followers = fields.pop("callbacks", 0)
        id = self._mint()
        # A callback may have one of its own.
        fields["callbacks"] = tuple(
            self._born(id=self._mint(), lane=LANES[(shape.lane + n) % 2], args=b"jfollower")
            if n == 0
            else self._born(
                id=self._mint(),
                lane=lane,
                args=b"jfollower",
                delay=SECOND,
                callbacks=(self._born(id=self._mint(), lane=lane, args=b"jlast"),),
            )
            for n in range(followers)
        )
        fields["id"] = id
        return self._born(**{"lane": lane, "args": b"jplain", **fields})

    def _mint(self) -> str:
        self.ids.append(uuid(len(self.ids) + 1))
        return self.ids[-1]

    def _born(self, **fields: Any) -> NewCall:
        call = NewCall(**fields)
        self.births[call.id] = call
        return call

    def _child_key(self, parent: str, fence: int, wish: str | None) -> str | None:
        """Return an identity; within a first run they are all different, as a worker's are."""
        if wish is None:
            return None
        known = self._child_keys.setdefault(parent, [])
        if wish == "known" and fence > 1 and known:
            return known[-1]
        known.append(f"child {len(known)}")
        return known[-1]
