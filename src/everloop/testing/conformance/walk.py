"""A random walk: verbs in any order, by several sessions, compared step by step with the oracle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random

import msgspec

from everloop._core.calls import Event, State
from everloop._core.clock import ManualClock
from everloop._core.records import Added, CallFilter, NewCall, Outcome, Turn
from everloop.testing.conformance.case import Factory
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.requests import ENDS, LANES, Requests
from everloop.testing.conformance.scene import SECOND
from everloop.testing.conformance.side_by_side import SideBySide

LEASE = 10 * SECOND

Step = Callable[[], Awaitable[None]]


async def walk(factory: Factory, seed: int | Random, steps: int = 150) -> Counter[str]:
    """Walk one random way through the verbs; the same seed is the same way.

    Returns:
        What was met on the way, and how often.

    Raises:
        AssertionError: The store and the oracle disagree, or an invariant is broken; a note says how
            to walk the same way again.
    """
    clock = ManualClock()
    store = factory(clock)
    await store.open()
    walker = Walker(SideBySide(store, clock), seed if isinstance(seed, Random) else Random(seed))  # noqa: S311
    try:
        for _ in range(steps):
            await walker.step()
        await walker.finish()
    except BaseException as error:
        error.add_note(f"{type(store).__name__}: at step {walker.steps}: {walker.both.doing}")
        error.add_note(f"to walk the same way again: walk(factory, {seed}, steps={steps})")
        raise
    finally:
        await store.close()
    return walker.both.met


class Walker:
    """One walk: draws a step, makes it, and looks at everything."""

    def __init__(self, both: SideBySide, random: Random) -> None:
        self.both = both
        self.steps = 0
        self._random = random
        self._requests = Requests(random)
        self._sessions: list[int] = []  # all that ever were; the last ones are likely to live
        self._again: Step | None = None
        self._kinds: dict[Step, int] = {
            self._turn: 45,
            self._add: 12,
            self._pass_time: 14,
            self._cancel: 6,
            self._wait: 4,
            self._repeat: 6,
            self._settle_late: 3,
            self._renew: 8,
            self.both.reap: 4,
            self._open: 3,
            self._close: 1,
            self._read: 3,
            self._prune: 2,
        }

    async def step(self) -> None:
        """Make one random step."""
        if not self._sessions:
            await self._open()
        (step,) = self._random.choices(list(self._kinds), list(self._kinds.values()))
        await step()
        await self.both.look()
        self.steps += 1

    async def finish(self) -> None:
        """End all that is left: when nothing fails any more, every call reaches its end."""
        for _ in range(1_000):
            if all(call.state.final for call in self.both.calls.values()):
                break
            self.both.clock.advance(LEASE / SECOND)
            await self.both.reap()
            session = await self.both.open_session(LEASE)
            leased = (await self.both.turn(session, Turn(room=1_000, lanes=LANES))).leased
            outcomes = [Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in leased]
            await self.both.turn(session, Turn(outcomes=outcomes))
            await self.both.look()
        left = {id: call.state.value for id, call in self.both.calls.items() if not call.state.final}
        same(left, {}, "calls that do not end although a worker takes them all")
        await self.both.find(CallFilter(limit=10_000))
        await self.both.runs([*self._requests.ids, *self.both.calls])
        await self.both.counts(None)
        for life in self.both.oracle.lives.values():
            self.both.met.update(word for word, _, _ in life.facts)

    # -- steps ------------------------------------------------------------------------------------

    def _session(self) -> int:
        """Draw a session: mostly one that was opened lately, at times one that is gone."""
        return self._random.choice(self._sessions[-3:] if self._random.random() < 0.95 else self._sessions)

    async def _turn(self) -> None:
        session, turn = self._session(), self._requests.turn()
        if self._random.random() < 0.15:
            turn = msgspec.structs.replace(turn, holding=self._some_held(session))
        answer = await self.both.turn(session, turn)
        self._requests.leases += [(lease.id, lease.fence) for lease in answer.leased]
        self._again = lambda: self._repeat_turn(session, turn)

    def _some_held(self, session: int) -> tuple[str, ...]:
        """Draw what a session still knows of what it holds."""
        held = [call.id for call in self.both.calls.values() if call.session == session]
        return tuple(id for id in held if self._random.random() < 0.7)

    async def _add(self) -> None:
        session = self._session() if self._random.random() < 0.8 else None
        calls = self._requests.calls(5)
        answers = await self.both.add(session, calls)
        self._again = lambda: self._repeat_add(session, calls, answers)

    async def _pass_time(self) -> None:
        self.both.clock.advance(self._random.choice((0.001, 0.5, 0.5, 1, 3)))

    async def _cancel(self) -> None:
        ids = self._requests.some(self._requests.ids, 3)
        parents = self._requests.parents(len(ids)) if self._random.random() < 0.5 else ()
        await self.both.cancel(ids, self._random.choice(("", "enough")), parents)

    async def _wait(self) -> None:
        await self.both.wait(self._session(), self._requests.some(self._requests.ids, 3))

    async def _renew(self) -> None:
        await self.both.renew(self._session(), LEASE)

    async def _open(self) -> None:
        self._sessions.append(await self.both.open_session(LEASE))

    async def _close(self) -> None:
        await self.both.close_session(self._session())

    async def _read(self) -> None:
        await self.both.find(self._requests.filter())
        await self.both.runs(self._requests.some(self._requests.ids, 5))
        await self.both.counts(self._random.choice((None, "a", "b")))

    async def _prune(self) -> None:
        if self._random.random() < 0.3:
            self.both.clock.advance(60)  # from then on a call that is one too many may go
        gone = await self.both.prune(self._requests.pruning())
        self._requests.forget(gone)
        if gone:
            self._again = None

    # -- asking again -----------------------------------------------------------------------------

    async def _repeat(self) -> None:
        """Make an earlier request again, as a caller does whose answer was lost."""
        if self._again is not None:
            self.both.met["asked again"] += 1
            await self._again()

    async def _repeat_turn(self, session: int, turn: Turn) -> None:
        """I7: a repeated turn settles nothing a second time."""
        held = self._some_held(session)
        answer = await self.both.turn(session, msgspec.structs.replace(turn, room=0, holding=held))
        same(answer.settled, [False] * len(turn.outcomes), "I7: settling a second time")

    async def _repeat_add(
        self, session: int | None, calls: Sequence[NewCall], before: Sequence[Added]
    ) -> None:
        """I7: what was added is there when it is added a second time, or its parent's lease is lost."""
        for old, new in zip(before, await self.both.add(session, calls), strict=True):
            if old.status == "added":
                holds(new in (Added(old.id, "exists"), Added(old.id, "lost")), f"I7: {old} and then {new}")

    async def _settle_late(self) -> None:
        """I5: settlements with fences that are not current change nothing at all."""
        stale = [lease for lease in self._requests.leases if not self._is_current(*lease)][-5:]
        outcomes = [Outcome(id, fence, self._random.choice(ENDS), b"jlate") for id, fence in stale]
        before = self.both.calls
        answer = await self.both.turn(self._session(), Turn(outcomes=outcomes))
        await self.both.look()
        same(answer.settled, [False] * len(stale), "I5: settling with a stale fence")
        same(self.both.calls, before, "I5: what is stored after stale settlements")

    def _is_current(self, id: str, fence: int) -> bool:
        call = self.both.calls.get(id)
        return call is not None and call.state is State.LEASED and call.fence == fence
