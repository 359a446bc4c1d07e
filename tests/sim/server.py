"""The simulated store: the memory store behind a network that loses requests, answers and wake-ups.

A request travels, arrives, is carried out, and its answer travels back. What was sent is not taken back by
a cancellation or by the death of who sent it, as with a database.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from everloop._core.clock import SECOND
from everloop._core.errors import StoreUnavailable
from everloop._core.looks import Gauges
from everloop._core.records import (
    Added,
    CallFilter,
    Cancelled,
    NewCall,
    Parent,
    SessionInfo,
    Snapshot,
    Turn,
    TurnAnswer,
)
from everloop.store.memory import MemoryStore
from everloop.store.no_transactions import NoTransactions
from everloop.store.protocol import NOBODY
from tests.sim.cells import Cells
from tests.sim.faults import Bell, Cell, Fault, Plan
from tests.sim.loop import Clockwork, SimLoop, finish
from tests.sim.watch import Watch

if TYPE_CHECKING:
    from tests.sim.nodes import Node

#: The store's instant at the beginning.
START = 1_700_000_000 * SECOND
#: Verbs of the memory store that wait for nothing by themselves.
_PLAIN = ("open", "close", "tend")
#: Verbs that keep a process going. Most of these requests take no time: the others are of more interest.
_UPKEEP = frozenset(
    ("open", "renew", "reap", "tend", "serve", "open_session", "close_session", "serving", "get")
)
#: How many of them do travel.
_TRAVEL = 0.25
#: What a turn can read of its session: its leases, the ends and the cancellations in its inbox.
Read = tuple[frozenset[tuple[str, int]], frozenset[str], dict[str, int]]


class Ask:
    """A request under way."""

    __slots__ = ("answer", "args", "loop", "node", "verb")

    def __init__(self, node: Node, loop: SimLoop, verb: str, args: tuple[Any, ...]) -> None:
        self.node = node
        self.loop = loop
        self.verb = verb
        self.args = args
        self.answer: asyncio.Future[Any] = loop.create_future()

    def tell(self, value: Any) -> None:
        """Let the answer arrive, if somebody is there to hear it."""
        if self.loop.dead or self.answer.done():
            return
        if isinstance(value, Exception):
            self.answer.set_exception(value)
        else:
            self.answer.set_result(value)


class Server:
    """Carries requests out, or not."""

    def __init__(self, clockwork: Clockwork, rng: Random, plan: Plan) -> None:
        self.clockwork = clockwork
        self.rng = rng
        self.plan = plan
        self.memory = MemoryStore(self)
        self.tables = self.memory._tables
        self.watch = Watch(self.tables, clockwork, self.now)
        self.cells = Cells(self.tables, self.now)
        self.away_until = 0.0
        self.aimed = ""  # a verb that always travels
        self.pause = (1.05, 2.5)  # for how long a process stands still, in leases
        self.drains = False  # whether one that stands still is asked to end meanwhile
        self.met: Counter[tuple[Cell, str]] = Counter()
        self.bells_met: Counter[tuple[str, str]] = Counter()
        self.requests = 0
        self.under_way = 0  # requests that are carried out later than they arrived
        self.pace = rng.choice((0.001, 0.005, 0.02))

    def now(self) -> int:
        """Return the store's instant."""
        return START + round(self.clockwork.now * SECOND)

    # -- on the way ------------------------------------------------------------------------------------------

    @property
    def has_dead(self) -> bool:
        """Whether a session's time is over."""
        now = self.now()
        return any(there.until <= now for there in self.tables.sessions.values())

    def is_alive(self, session: int) -> bool:
        """Whether a session's time is not over."""
        there = self.tables.sessions.get(session)
        return there is not None and there.until > self.now()

    def spares(self, verb: str) -> bool:
        """Whether upkeep is answered without travelling: mostly, unless the store is away."""
        return verb != self.aimed and self.clockwork.now >= self.away_until and self.rng.random() < 0.85

    def _answer(self, ask: Ask, value: Any, after: float = 0.0) -> None:
        chance = self.rng.random()
        if after or chance < 0.5:
            self.clockwork.after(after + self.rng.random() * self.pace, partial(ask.tell, value))
        elif chance < 0.9:
            ask.tell(value)
        else:
            ask.loop.call_soon(ask.tell, value)  # behind what else the process has to do

    def _refuse(self, ask: Ask, why: str) -> None:
        self._answer(ask, StoreUnavailable(f"simulated: {why}"))

    def send(self, ask: Ask) -> None:
        """Let a request travel, or be there."""
        random = self.rng.random
        if ask.verb not in _UPKEEP or random() < _TRAVEL:
            self.clockwork.after(random() * self.pace, partial(self._arrive, ask))
        elif self._is_well(ask):
            ask.tell(self.carry_out(ask))

    def _arrive(self, ask: Ask) -> None:
        if self._is_well(ask):
            self._answer(ask, self.carry_out(ask))

    def _is_well(self, ask: Ask) -> bool:
        """Tell whether nothing happens to a request; what does, happens."""
        self.requests += 1
        node = ask.node
        if self.clockwork.now < self.away_until:
            node.disturb()
            self._refuse(ask, "the store is away")
            return False
        if self.plan.over or node.dead:
            return True
        aimed, by_chance = self.plan.strikes(ask.verb)
        if not (aimed or by_chance):
            return True
        cells = self.cells.of(ask.verb, ask.args, first=not node.sessions)
        fault = self.plan.draw(cells, node.may_suffer(), node.kind, by_chance=by_chance)
        if fault is None:
            return True
        for cell in cells:
            self.met[cell, fault] += 1
        self.watch.sometimes[fault] += 1
        self.watch.note(f"{fault}: {node.name} {ask.verb} {cells}")
        self._suffer(ask, fault)
        return False

    def _suffer(self, ask: Ask, fault: Fault) -> None:  # noqa: C901 - a list, not a logic
        node, rng = ask.node, self.rng
        node.disturb()
        match fault:
            case Fault.ERROR:
                self._refuse(ask, "not carried out")
            case Fault.LOST:
                self.carry_out(ask)
                self._refuse(ask, "carried out, and the answer is lost")
            case Fault.LATE:
                self._refuse(ask, "carried out later")
                known = self._read(ask)
                self.under_way += 1
                self.clockwork.after(
                    rng.choice((0.01, 0.3, 3.0)) * rng.random(), lambda: self._carry_out_late(ask, known)
                )
            case Fault.DELAY:
                seconds = rng.choice((0.3, 1.0, 4.0)) * rng.random()
                if rng.random() < 0.5:
                    self._answer(ask, self.carry_out(ask), seconds)
                else:
                    self.under_way += 1
                    self.clockwork.after(seconds, lambda: self._answer(ask, self._carry_out_after_all(ask)))
            case Fault.CRASH_BEFORE:
                node.crash()
            case Fault.CRASH_AFTER:
                self.carry_out(ask)
                node.crash()
            case Fault.PAUSE_BEFORE:
                seconds = node.pause() * rng.random()
                self.under_way += 1
                self.clockwork.after(seconds, lambda: self._answer(ask, self._carry_out_after_all(ask)))
            case Fault.PAUSE_AFTER:
                self._answer(ask, self.carry_out(ask))
                node.pause()
            case Fault.OUTAGE:
                self.away_until = self.clockwork.now + rng.choice((0.3, 2.0, 5.0)) * (0.5 + rng.random())
                self.watch.outage(self.away_until)
                self._refuse(ask, "the store goes away")
            case Fault.DRAIN:
                node.drain()
                self._answer(ask, self.carry_out(ask))

    def _read(self, ask: Ask) -> Read:
        """Return what a turn that arrives now can read of its session."""
        session = ask.args[0] if ask.verb == "turn" else -1
        there = self.tables.sessions.get(session)
        leases = frozenset((row.id, row.fence) for row in self.tables.held(session))
        return leases, frozenset(there.ended) if there else frozenset(), dict(there.cancels) if there else {}

    def _carry_out_late(self, ask: Ask, known: Read) -> None:
        """Do what a transaction does that is committed late: what it takes away it has read in time."""
        if ask.verb != "turn":
            self._carry_out_after_all(ask)
            return
        session, turn = ask.args
        leases, ends, cancels = known
        if turn.holding is not None:
            newer = [id_ for id_, _ in self._read(ask)[0] - leases]
            ask.args = session, msgspec.structs.replace(turn, holding=(*turn.holding, *newer))
        there = self.tables.sessions.get(session)
        later_ends = [id_ for id_ in there.ended if id_ not in ends] if there else []
        later_cancels = (
            {id_: fence for id_, fence in there.cancels.items() if cancels.get(id_) != fence} if there else {}
        )
        if there is not None:
            for id_ in later_ends:
                del there.ended[id_]
            for id_ in later_cancels:
                del there.cancels[id_]
        self._carry_out_after_all(ask)
        if there is not None:
            there.ended.update(dict.fromkeys(later_ends))
            there.cancels.update(later_cancels)

    def _carry_out_after_all(self, ask: Ask) -> Any:
        self.under_way -= 1
        value = self.carry_out(ask)
        self.watch.on_quiet()
        return value

    # -- at the store ----------------------------------------------------------------------------------------

    def carry_out(self, ask: Ask) -> Any:
        """Do what is asked, and look at what has become of everything."""
        watch, args = self.watch, ask.args
        watch.before(ask.verb, args)
        if ask.verb in _PLAIN:
            value = finish(getattr(self.memory, ask.verb)())
        else:
            verb = getattr(MemoryStore, ask.verb).__wrapped__
            named = dict(zip(("overdue", "dead"), args, strict=True)) if ask.verb == "reap" else {}
            value = finish(verb(self.memory, *(() if named else args), **named))
        watch.after(ask.node, ask.verb, args, value)
        return value


class SimStore(NoTransactions):
    """The store as one process has it.

    Args:
        server: What carries out requests.
        node: The process.
    """

    def __init__(self, server: Server, node: Node) -> None:
        self.url = "sim://"
        self._server = server
        self._node = node
        self._opened = False

    def twin(self) -> SimStore:
        return SimStore(self._server, self._node)

    def now(self) -> int:
        return self._server.now() + self._node.skew

    def _ask(self, verb: str, *args: Any) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        ask = Ask(self._node, loop, verb, args)
        if loop.stops:  # a body has blocked it within this step
            loop.once_it_goes_on(partial(self._server.send, ask))
        else:
            self._server.send(ask)
        return ask.answer

    async def open(self) -> None:
        if self._opened and self._server.spares("open"):
            return
        await self._ask("open")
        self._opened = True

    async def close(self) -> None:
        """Do nothing: closing asks nobody."""

    async def tend(self) -> None:
        if not self._server.spares("tend"):
            await self._ask("tend")

    async def open_session(self, info: SessionInfo, lease: int) -> int:
        number: int = await self._ask("open_session", info, lease)
        self._node.sessions.append(number)
        return number

    async def renew(self, session: int, lease: int, gauges: Gauges | None = None) -> bool:
        if self._server.is_alive(session) and self._server.spares("renew"):
            renew = MemoryStore.renew.__wrapped__  # type: ignore[attr-defined]  # set by `wraps`
            return finish(renew(self._server.memory, session, lease, gauges))  # type: ignore[no-any-return]
        alive: bool = await self._ask("renew", session, lease, gauges)
        return alive

    async def serve(self, session: int, info: SessionInfo) -> None:
        await self._ask("serve", session, info)

    async def close_session(self, session: int) -> None:
        await self._ask("close_session", session)

    async def reap(self, *, overdue: bool = True, dead: Mapping[int, str] = NOBODY) -> int:
        if not (self._server.has_dead or dead) and self._server.spares("reap"):
            return 0
        count: int = await self._ask("reap", overdue, dead)
        return count

    async def turn(self, session: int, turn: Turn) -> TurnAnswer:
        answer: TurnAnswer = await self._ask("turn", session, turn)
        return answer

    async def add(self, session: int | None, calls: Sequence[NewCall]) -> list[Added]:
        added: list[Added] = await self._ask("add", session, calls)
        return added

    async def wait(self, session: int, ids: Sequence[str]) -> list[str]:
        unknown: list[str] = await self._ask("wait", session, list(ids))
        return unknown

    async def cancel(
        self, ids: Sequence[str], message: str = "", parents: Sequence[Parent | None] = ()
    ) -> list[Cancelled]:
        cancelled: list[Cancelled] = await self._ask("cancel", list(ids), message, list(parents))
        return cancelled

    async def get(self, ids: Sequence[str]) -> list[Snapshot | None]:
        found: list[Snapshot | None] = await self._ask("get", list(ids))
        return found

    async def find(self, filter: CallFilter) -> list[Snapshot]:
        return finish(MemoryStore.find.__wrapped__(self._server.memory, filter))  # type: ignore[attr-defined,no-any-return]  # set by `wraps`

    async def counts(self, app: str | None = None, queue: str | None = None) -> dict[str, int]:
        return finish(MemoryStore.counts.__wrapped__(self._server.memory, app, queue))  # type: ignore[attr-defined,no-any-return]  # (the same)

    async def serving(self, app: str) -> list[tuple[str, str]]:
        served: list[tuple[str, str]] = await self._ask("serving", app)
        return served

    def listen(self, session: int, wake: Callable[[], None]) -> Callable[[], None]:
        """Register a bell that may be lost, late, or heard twice."""
        server, node = self._server, self._node
        loop = asyncio.get_running_loop()

        def ring() -> None:
            bell = server.plan.bell()
            if bell is not None:
                server.bells_met[node.kind, bell] += 1
            if bell is not Bell.LOST and bell is not Bell.LATE:
                wake()
            if bell is Bell.TWICE or bell is Bell.LATE:
                loop.call_later(server.rng.random(), wake)

        return server.memory.listen(session, ring)
