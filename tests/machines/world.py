"""A store with whatever may befall it: failing statements, lost answers, restarts, dead workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from everloop._core.calls import Event, State
from everloop._core.clock import Clock, ManualClock
from everloop._core.records import Added, CallFilter, NewCall, Outcome, SessionInfo, Turn, TurnAnswer
from everloop.store.protocol import Store
from everloop.testing.conformance import Fault
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.interleavings import Ask, Struck, happened
from everloop.testing.conformance.scene import SECOND
from everloop.testing.conformance.side_by_side import SideBySide
from tests.machines.shapes import LANES

LEASE = 10 * SECOND
#: The transaction that numbers new lanes, before the one that is asked for.
NUMBERING = {"lane_add", "lane_all"}


class Users(Protocol):
    """Transactions of the user's on the database of a store, with a row of his own in each."""

    #: Whether calls with keys may be in them as they begin by default.
    keys: bool

    def begin(self) -> Any:
        """Return the connection, with an open transaction in which a row was written."""
        ...

    def rows(self) -> int:
        """Count the rows that are committed."""
        ...

    def impossible(self) -> dict[str, Any]:
        """Return what the tables of the store hold and no store may hold."""
        ...


class Place:
    """Where a store is: makes an object for it, any number of times."""

    def __init__(
        self,
        store: Callable[[Clock, Fault], Store],
        *,
        strikes: bool = True,
        pieces: bool = False,
        users: Users | None = None,
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        self.store = store
        #: Whether it calls the fault.
        self.strikes = strikes
        #: Whether a verb may go on in another transaction where the first one could do nothing.
        self.pieces = pieces
        self.users = users
        #: Called when nobody needs the place any more.
        self.leave = leave


class Striker:
    """The fault of a store: counts the places of a verb where it can fail, and fails at one of them."""

    def __init__(self, *, pieces: bool) -> None:
        self.struck = ""
        self._pieces = pieces
        self._left: int | None = None
        self._numbering = False

    def __call__(self, place: str, _number: int) -> None:
        if place in NUMBERING:
            self._numbering = True
        elif self._numbering:
            self._numbering = place != "COMMITTED"
        elif self._left is not None:
            if self._left:
                self._left -= 1
                return
            self._left = None
            if place == "COMMITTED" and self._pieces:
                return  # that was perhaps not the end: the answer is lost there
            self.struck = place
            raise Struck(place)

    def arm(self, place: int | None) -> None:
        self._left, self.struck, self._numbering = place, "", False


class World:
    """A store beside the oracle, and the sessions that clients and workers believe they have.

    Attributes:
        sessions: Those that somebody still uses, oldest first.
        gone: Those that were closed, or whose worker died.
        told: By session, the ids of the leases that it was told of.
    """

    def __init__(self, place: Place) -> None:
        self.clock = ManualClock()
        self.place = place
        self.striker = Striker(pieces=place.pieces)
        self.both = SideBySide(place.store(self.clock, self.striker), self.clock)
        self.sessions: list[int] = []
        self.gone: list[int] = []
        self.told: dict[int, set[str]] = {}
        self.met: Counter[str] = Counter()
        self.again: Ask | None = None
        self.serves: dict[int, int] = {}  # how many of the lanes; all, where nothing stands here
        self._committed = 0  # transactions of users

    async def open(self) -> None:
        await self.both.store.open()
        await self.open_session()

    async def close(self) -> None:
        self.place.leave()
        await self.both.store.close()

    def session(self, which: int) -> int:
        """Return a session by its place from the end; after those in use come those that are gone."""
        known = [*self.gone, *self.sessions]
        return known[-1 - which % len(known)]

    # -- whatever is asked ------------------------------------------------------------------------

    async def ask(self, request: Ask, fate: int) -> Any:
        """Make a request; with a fate other than 0 it fails there, or its answer is lost, and it comes again.

        Returns:
            The answer that the caller has in the end.
        """
        if fate:
            await self._lose(request, fate - 1)
            await self.look(again=True)
            if request.verb == "turn":
                # Whoever has lost the answer to a turn says what it holds.
                session, turn = request.args
                turn = Turn(
                    **{n: getattr(turn, n) for n in turn.__struct_fields__} | {"holding": self.held(session)}
                )
                request = Ask("turn", (session, turn))
        answer = await request.of(self.both)
        if isinstance(answer, TurnAnswer):
            now = self.clock.now()
            holds(all(each.due <= now for each in answer.leased), "I12: nothing is leased before it is due")
            self.told[request.args[0]].update(each.id for each in answer.leased)
        self.again = request
        return answer

    async def _lose(self, request: Ask, place: int) -> None:
        """Let a request fail at one of its statements, or lose its answer when it has fewer."""
        if self.place.strikes:
            self.striker.arm(place)
            try:
                await request.of(self.both.store)
            except Struck:
                if self.striker.struck != "COMMITTED":
                    self.met[f"{request.verb} failed"] += 1
                    return
            finally:
                self.striker.arm(None)
            happened(self.both, request)
        elif place % 2:
            self.met[f"{request.verb} failed"] += 1
            return
        else:
            await request.of(self.both)
        self.met[f"{request.verb} happened unheard"] += 1

    def held(self, session: int) -> tuple[str, ...]:
        """Return what a session believes that it holds."""
        return tuple(sorted(self.told[session]))

    async def ask_again(self) -> None:
        """I7: what was asked last has one effect, however often it is asked."""
        if self.again is None:
            return
        verb, args = self.again
        if verb == "turn":
            session, turn = args
            repeated = Turn(outcomes=turn.outcomes, adds=turn.adds, holding=self.held(session))
            known = set(self.both.calls)
            answer = await self.both.turn(session, repeated)
            same(answer.settled, [False] * len(turn.outcomes), "I7: settling a second time")
            self._added_once(turn.adds, answer.added, known)
        elif verb == "add":
            known = set(self.both.calls)
            self._added_once(args[1], await self.both.add(*args), known)
        elif verb != "reap":  # which is asked at another instant
            await self.again.of(self.both)
        self.met[f"{verb} again"] += 1

    @staticmethod
    def _added_once(calls: Sequence[NewCall], answers: Sequence[Added], known: set[str]) -> None:
        # One that had joined another, which has ended meanwhile, is there for the first time now.
        twice = [
            answer
            for call, answer in zip(calls, answers, strict=True)
            if answer.status == "added" and call.id in known
        ]
        holds(not twice, f"I7: adding again: {twice}")

    async def late(self, which: int, event: Event) -> None:
        """I5: whatever is said under a fence that is not the current one changes nothing."""
        calls = self.both.calls
        stale = [
            Outcome(id, fence, event, b"jlate")
            for id, fence in self.both.log.leases
            if (calls[id].state, calls[id].fence) != (State.LEASED, fence)
        ][-5:]
        answer = await self.both.turn(self.session(which), Turn(outcomes=stale))
        await self.both.look()
        same(answer.settled, [False] * len(stale), "I5: settling with a stale fence")
        same(self.both.calls, calls, "I5: what is stored after stale settlements")
        self.met["late outcomes"] += len(stale)

    async def look(self, *, again: bool = False) -> None:
        """Compare all that is stored with the oracle, and try the invariants."""
        both, known = self.both, len(self.both.calls)
        await both.look()
        if self.place.users is not None:
            same(self.place.users.impossible(), {}, "what no store may hold")
        if not again and self.place.strikes and len(both.calls) == known:
            return  # nobody has added anything, and each call was looked at
        counts = await both.store.counts()
        same(sum(counts.values()), len(both.calls), "I24: what is counted and what was acknowledged")
        states = Counter(call.state.value for call in both.calls.values())
        same({state: n for state, n in counts.items() if n}, dict(states), "I24: the counts and the calls")

    # -- what befalls it --------------------------------------------------------------------------

    async def open_session(self) -> None:
        session = await self.both.open_session(LEASE, LANES)
        self.sessions.append(session)
        self.told[session] = set()

    async def crash(self, which: int) -> None:
        """Let a worker die: the others go on, and one of them sees its time pass."""
        holders = {call.session for call in self.both.calls.values() if call.state is State.LEASED}
        victim = sorted(self.sessions, key=holders.__contains__)[-1 - which % len(self.sessions)]
        self.sessions.remove(victim)
        self.gone.append(victim)
        await self.both.renew(victim, SECOND)
        for session in self.sessions:
            await self.both.renew(session, LEASE)
        self.clock.advance(1)
        await self.both.reap()
        self.met["a worker died with calls" if victim in holders else "a worker died"] += 1

    async def restart(self) -> None:
        """Close the store and open it again, as another process would."""
        await self.both.store.close()
        self.both.store = self.place.store(self.clock, self.striker)
        await self.both.store.open()
        self.met["restarted"] += 1

    async def serve(self, which: int, lanes: int) -> None:
        """Let a session serve other lanes."""
        store, session = self.both.store, self.session(which)
        info = SessionInfo(app="a", kind="worker", host="here", pid=1, lanes=LANES[:lanes])
        await store.serve(session, info)
        if session in self.both.oracle.until:
            self.serves[session] = lanes
        await self.served()

    async def served(self) -> None:
        """Compare what is said to be served with what the living sessions have said."""
        now = self.clock.now()
        living = [s for s, until in self.both.oracle.until.items() if until > now]
        lanes = {lane for s in living for lane in LANES[: self.serves.get(s, len(LANES))]}
        wanted = sorted((lane.queue, lane.fn) for lane in lanes if lane.app == "a")
        same(await self.both.store.serving("a"), wanted, "the answer to serving")

    async def in_transaction(self, calls: Sequence[NewCall], *, commit: bool) -> None:
        """I18: calls and a row of the user's are both there, or neither is."""
        users = self.place.users
        if users is None:
            raise LookupError("this store takes no transactions of users")
        if not users.keys:
            calls = [call for call in calls if call.key is None]
        connection = users.begin()
        try:
            added, _ = await self.both.store.add_on(connection, calls)
            if commit:
                connection.commit()
        finally:
            connection.rollback()  # what was not committed
        if commit:
            self._committed += 1
            same(added, self.both.oracle.add(None, calls, self.clock.now()), "the answer to add_on")
            for call, answer in zip(calls, added, strict=True):
                self.both.log.note_added(call, answer)
        same(users.rows(), self._committed, "I18: the user's rows")
        self.met["the user committed" if commit else "the user rolled back"] += 1

    # -- the end ----------------------------------------------------------------------------------

    async def finish(self) -> None:
        """I20: when nothing fails any more, every call reaches its end."""
        both = self.both
        for _ in range(200):
            if all(call.state.final for call in both.calls.values()):
                break
            self.clock.advance(LEASE / SECOND)
            await both.reap()
            session = await both.open_session(LEASE)
            leased = (await both.turn(session, Turn(room=1_000, lanes=LANES))).leased
            outcomes = [Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in leased]
            await both.turn(session, Turn(outcomes=outcomes))
            await self.look()
        left = {id: call.state.value for id, call in both.calls.items() if not call.state.final}
        same(left, {}, "I20: calls that do not end although a worker takes them all")
        await both.find(CallFilter(limit=10_000))
        for life in both.oracle.lives.values():
            self.met.update(word for word, _, _ in life.facts)
        self.met += both.met
