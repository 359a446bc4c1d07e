"""Random requests: everything that a client or a worker may ask, sensible or not."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from everloop._core.calls import Event, State
from everloop._core.keeping import Pruning
from everloop._core.records import CallFilter, KeyRule, Lane, NewCall, Outcome, Parent, Progress, Turn
from everloop.testing.conformance.scene import SECOND, uuid

LANES = tuple(Lane(app, queue, fn) for app in ("a", "b") for queue in ("p", "q") for fn in ("f", "g"))
ENDS = (Event.SUCCEED, Event.FAIL, Event.CANCEL, Event.RETRY, Event.RELEASE, Event.REAP)
DELAYS = (0, 0, 0, SECOND // 2, 3 * SECOND)


class Requests:
    """Draws requests about the calls and leases that are known so far.

    Attributes:
        ids: Every id that was ever used, added or not.
        leases: Every (id, fence) that was ever handed out; the last ones are the current ones.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.ids: list[str] = []
        self.leases: list[tuple[str, int]] = []
        self.gone: set[str] = set()
        self._child_keys: dict[str, list[str]] = {}

    def some(self, population: Sequence[str], most: int) -> list[str]:
        """Draw up to `most` of them, now and then one twice."""
        return self.random.choices(population, k=self.random.randint(0, most)) if population else []

    def lane(self) -> Lane:
        """Draw a lane; the first ones are the busy ones."""
        return self.random.choice(LANES if self.random.random() < 0.3 else LANES[:2])

    def lanes(self) -> tuple[Lane, ...]:
        """Draw the lanes of a turn: mostly all."""
        draw = self.random.random()
        return () if draw < 0.2 else LANES if draw < 0.8 else tuple(self.random.sample(LANES, 3))

    def _known_id(self) -> str:
        """Draw an id that was used, mostly a recent one."""
        return self.random.choice(self.ids[-12:] if self.random.random() < 0.7 else self.ids)

    def _lease(self) -> tuple[str, int]:
        """Draw a lease, mostly a recent one; older ones are stale."""
        return self.random.choice(self.leases[-6:] if self.random.random() < 0.8 else self.leases)

    def forget(self, ids: set[str]) -> None:
        """Ask nothing more about calls that were pruned; their ids are not used again."""
        self.gone |= ids
        self.ids = [id for id in self.ids if id not in ids]
        self.leases = [lease for lease in self.leases if lease[0] not in ids]

    # -- keeping ----------------------------------------------------------------------------------

    def pruning(self) -> Pruning:
        """Draw what is kept for too long."""
        choice = self.random.choice
        ages = (None, 0, SECOND, 10 * SECOND)
        return Pruning(
            choice(("a", "b")),
            calls=choice(ages),
            failed=choice(ages),
            results=choice(ages),
            count=choice((None, None, 0, 3)),
            every=choice((0, 0, 2 * SECOND)),
        )

    # -- adding -----------------------------------------------------------------------------------

    def calls(self, most: int = 4) -> list[NewCall]:
        return [self.call() for _ in range(self.random.randint(1, most))]

    def call(self, depth: int = 0) -> NewCall:
        """Draw a call to add; `depth` counts callbacks within callbacks."""
        draw = self.random.random
        if self.ids and draw() < 0.1:
            id = self._known_id()
        else:
            id = uuid(len(self.ids) + len(self.gone) + 1)
            self.ids.append(id)
        if draw() < 0.3:
            return NewCall(id=id, lane=self.lane(), args=b"jplain")
        parent = self._parent() if depth == 0 and draw() < 0.5 else None
        callbacks = self.random.randint(1, 2) if depth < 2 and draw() < 0.2 else 0
        return NewCall(
            id=id,
            lane=self.lane(),
            args=self.random.choice((b"jplain", b"jother")),
            policy=self.random.choice((b"", b"{}")),
            priority=self.random.choice((None, None, -1, 0, 2)),
            due=0,
            delay=self.random.choice(DELAYS),
            expires=self.random.choice((None, None, None, 2 * SECOND, 20 * SECOND)),
            crash_limit=self.random.choice((0, 1, 5)),
            parent=parent,
            owned=draw() < 0.8,
            child_key=self._child_key(parent) if parent else None,
            key=self._key() if draw() < 0.25 else None,
            tags=self.random.choice(((), ("t",), ("t", "u"))),
            after=self._known_id() if depth == 0 and self.ids and draw() < 0.15 else None,
            callbacks=tuple(self.call(depth + 1) for _ in range(callbacks)),
            told=draw() < 0.8,
        )

    def parents(self, number: int) -> list[Parent | None]:
        """Draw in whose name each of some calls is cancelled; now and then in nobody's."""
        return [self._parent() if self.random.random() < 0.8 else None for _ in range(number)]

    def _parent(self) -> Parent | None:
        return Parent(*self._lease()) if self.leases else None

    def _child_key(self, parent: Parent) -> str | None:
        """Draw an identity; within a first run they are all different, as a worker's are."""
        known = self._child_keys.setdefault(parent.id, [])
        if parent.fence > 1 and known and self.random.random() < 0.7:
            return self.random.choice(known)
        if self.random.random() < 0.2:
            return None
        known.append(f"child {len(known)}")
        return known[-1]

    def _key(self) -> KeyRule:
        choice = self.random.choice
        return KeyRule(
            choice(("x", "y")),
            choice(("live", "live", "done", "ever")),
            choice(("join", "join", "raise", "replace")),
        )

    # -- turns ------------------------------------------------------------------------------------

    def turn(self) -> Turn:
        draw = self.random.random
        return Turn(
            outcomes=self.outcomes() if draw() < 0.7 else [],
            adds=self.calls(3) if draw() < 0.5 else [],
            progress=self.progress() if draw() < 0.2 else [],
            room=self.random.choice((0, 1, 2, 10)),
            lanes=self.lanes(),
            roots=draw() < 0.85,
            suspects=draw() < 0.6,
        )

    def outcomes(self) -> list[Outcome]:
        leases = [self._lease() for _ in range(self.random.randint(1, 4))] if self.leases else []
        return [self._outcome(id, fence) for id, fence in leases]

    def _outcome(self, id: str, fence: int) -> Outcome:
        return Outcome(
            id,
            fence,
            self.random.choice(ENDS),
            value=self.random.choice((None, b"jvalue")),
            error=self.random.choice((None, b"jerror")),
            delay=self.random.choice(DELAYS),
        )

    def progress(self) -> list[Progress]:
        leases = [self._lease() for _ in range(2)] if self.leases else []
        return [Progress(id, fence, self.random.randint(0, 9) / 2, None, "so far") for id, fence in leases]

    def filter(self) -> CallFilter:
        """Draw a listing."""
        choice = self.random.choice
        return CallFilter(
            app=choice((None, None, "a", "b")),
            states=choice(((), (), (State.READY, State.WAITING), (State.CANCELLED,))),
            queue=choice((None, None, "q")),
            fn=choice((None, None, "f")),
            tag=choice((None, None, "u")),
            parent=choice((None, None, self._known_id())) if self.ids else None,
            limit=choice((1, 5, 100)),
            before=choice((None, None, self._known_id())) if self.ids else None,
        )
