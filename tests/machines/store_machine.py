"""The machine: every verb of a store, in any order, with time, crashes, restarts and lost answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from everloop._core.calls import Event, State
from everloop._core.records import CallFilter, Parent, Turn
from everloop.testing.conformance.interleavings import Ask
from tests.machines.shapes import BATCHES, ENDS, LANES, LEASES, OUTCOMES, CallShape, EndShape, Minting
from tests.machines.world import LEASE, Place, World

SESSIONS = st.integers(0, 4)
#: 0: the request is answered; else the place where it fails, see `World.ask`.
FATES = st.sampled_from((*(0,) * 12, *range(1, 13)))
ROOMS = st.sampled_from((10, 1, 2))
IDS = st.lists(st.integers(0, 11), min_size=1, max_size=3)
FILTERS = (
    CallFilter(limit=1_000),
    CallFilter(app="a", fn="f"),
    CallFilter(queue="q", limit=2),
    CallFilter(states=(State.READY, State.WAITING)),
    CallFilter(tag="u"),
)


class StoreMachine(RuleBasedStateMachine):
    """Every rule is one request to a store and to the oracle, or something that befalls the store."""

    #: Makes a fresh place for a store.
    make: ClassVar[Callable[[], Place]]
    #: Runs a coroutine to its end.
    run: ClassVar[Callable[[Coroutine[Any, Any, None]], None]]
    #: What all machines of this class have done.
    steps: ClassVar[int]
    met: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.minting = Minting()
        self.world = World(type(self).make())
        self._sound = True
        self._run(self.world.open())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            type(self).run(work)
        except BaseException:
            self._sound = False
            raise

    def _step(self, *works: Awaitable[None]) -> None:
        """Make one step, and look at everything after it."""

        async def step() -> None:
            for work in works:
                await work
            await self.world.look()

        type(self).steps += 1
        self._run(step())

    def _ask(self, fate: int, verb: str, *args: object) -> None:
        self._step(self._asked(Ask(verb, args), fate))

    async def _asked(self, request: Ask, fate: int) -> None:
        answer = await self.world.ask(request, fate)
        if request.verb == "turn":
            self.minting.leases += [(lease.id, lease.fence) for lease in answer.leased]

    def teardown(self) -> None:
        try:
            if self._sound:
                self._run(self.world.finish())
                type(self).met += self.world.met
        finally:
            type(self).run(self.world.close())

    # -- calls ------------------------------------------------------------------------------------

    @rule(session=st.none() | SESSIONS, shapes=BATCHES, fate=FATES)
    def add(self, session: int | None, shapes: list[CallShape], fate: int) -> None:
        asking = None if session is None else self.world.session(session)
        self._ask(fate, "add", asking, self.minting.calls(shapes, self.world.clock.now()))

    @rule(ids=IDS, fate=FATES)
    def cancel(self, ids: list[int], fate: int) -> None:
        self._ask(fate, "cancel", [self.minting.id(which) for which in ids], "enough")

    @rule(ids=IDS, leases=IDS, fate=FATES)
    def cancel_as_parents(self, ids: list[int], leases: list[int], fate: int) -> None:
        known = [self.minting.lease(leases[n % len(leases)]) for n in range(len(ids))]
        parents = [None if lease is None else Parent(*lease) for lease in known]
        self._ask(fate, "cancel", [self.minting.id(which) for which in ids], "enough", parents)

    @rule(session=SESSIONS, ids=IDS, fate=FATES)
    def wait(self, session: int, ids: list[int], fate: int) -> None:
        self._ask(fate, "wait", self.world.session(session), [self.minting.id(which) for which in ids])

    # -- turns ------------------------------------------------------------------------------------

    def _turn(self, which: int, fate: int, turn: Turn) -> None:
        self._ask(fate, "turn", self.world.session(which), turn)

    @rule(session=SESSIONS, room=ROOMS, suspects=st.booleans(), fate=FATES)
    def lease(self, session: int, room: int, suspects: bool, fate: int) -> None:
        self._turn(session, fate, Turn(room=room, lanes=LANES, suspects=suspects))

    @rule(session=SESSIONS, room=ROOMS, lanes=st.integers(1, 2), roots=st.booleans(), fate=FATES)
    def lease_some(self, session: int, room: int, lanes: int, roots: bool, fate: int) -> None:
        self._turn(session, fate, Turn(room=room, lanes=LANES[:lanes], roots=roots))

    @rule(session=SESSIONS, shapes=OUTCOMES, fate=FATES)
    def settle(self, session: int, shapes: list[EndShape], fate: int) -> None:
        self._turn(session, fate, Turn(outcomes=self.minting.outcomes(shapes)))

    @rule(session=SESSIONS, shapes=BATCHES, fate=FATES)
    def add_in_a_turn(self, session: int, shapes: list[CallShape], fate: int) -> None:
        self._turn(session, fate, Turn(adds=self.minting.calls(shapes, self.world.clock.now())))

    @rule(session=SESSIONS, ends=OUTCOMES, shapes=BATCHES, room=ROOMS, fate=FATES)
    def work(self, session: int, ends: list[EndShape], shapes: list[CallShape], room: int, fate: int) -> None:
        turn = Turn(
            outcomes=self.minting.outcomes(ends),
            adds=self.minting.calls(shapes, self.world.clock.now()),
            progress=self.minting.progress(ends[0].which),
            room=room,
            lanes=LANES,
        )
        self._turn(session, fate, turn)

    @rule(session=SESSIONS, fate=FATES)
    def look_into_the_inbox(self, session: int, fate: int) -> None:
        self._turn(session, fate, Turn())

    @rule(session=SESSIONS, which=LEASES, fate=FATES)
    def report_progress(self, session: int, which: int, fate: int) -> None:
        self._turn(session, fate, Turn(progress=self.minting.progress(which), lanes=LANES[:1]))

    @rule(session=SESSIONS, keep=st.integers(0, 3), fate=FATES)
    def forget_what_is_held(self, session: int, keep: int, fate: int) -> None:
        asking = self.world.session(session)
        self._ask(fate, "turn", asking, Turn(holding=self.world.held(asking)[:keep]))

    # -- asking again -----------------------------------------------------------------------------

    @rule()
    def ask_again(self) -> None:
        self._step(self.world.ask_again())

    @rule(session=SESSIONS, event=st.sampled_from(ENDS))
    def settle_late(self, session: int, event: Event) -> None:
        self._step(self.world.late(session, event))

    # -- sessions ---------------------------------------------------------------------------------

    @rule(session=SESSIONS, fate=FATES)
    def renew(self, session: int, fate: int) -> None:
        self._ask(fate, "renew", self.world.session(session), LEASE)

    @rule(session=SESSIONS, fate=FATES)
    def close_session(self, session: int, fate: int) -> None:
        world = self.world
        closing = world.session(session)
        if closing in world.sessions and len(world.sessions) > 1:
            world.sessions.remove(closing)
            world.gone.append(closing)
        self._ask(fate, "close_session", closing)

    @rule(fate=FATES)
    def reap(self, fate: int) -> None:
        self._ask(fate, "reap")

    @rule(session=SESSIONS, lanes=st.integers(-1, 3))
    def open_or_serve(self, session: int, lanes: int) -> None:
        world = self.world
        self._step(world.open_session() if lanes < 0 else world.serve(session, lanes))

    # -- what befalls it --------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.5, 1, 0.001, 3)))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.advance(seconds)
        self._step()

    @rule(session=SESSIONS)
    def worker_dies(self, session: int) -> None:
        if len(self.world.sessions) == 1:
            self._step(self.world.open_session(), self.world.crash(session))
        else:
            self._step(self.world.crash(session))

    @rule(which=st.integers(0, len(FILTERS)))
    def find_or_restart(self, which: int) -> None:
        world = self.world
        if which < len(FILTERS):
            self._step(world.both.find(FILTERS[which]), world.served())
        else:
            self._step(world.restart())


class SqlMachine(StoreMachine):
    """The same where a user may have transactions of his own."""

    @rule(shapes=BATCHES, commit=st.booleans())
    def submit_in_a_transaction(self, shapes: list[CallShape], commit: bool) -> None:
        calls = self.minting.calls(shapes, self.world.clock.now())
        self._step(self.world.in_transaction(calls, commit=commit))
