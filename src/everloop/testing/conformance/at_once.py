"""At once: several store objects on one state, each in a thread of its own, as processes would be."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from everloop._core.calls import Event, State
from everloop._core.clock import ManualClock
from everloop._core.records import (
    Added,
    CallFilter,
    KeyRule,
    Leased,
    NewCall,
    Outcome,
    Parent,
    SessionInfo,
    Turn,
)
from everloop.store.protocol import Store
from everloop.testing.conformance.case import Factory
from everloop.testing.conformance.expect import holds, same
from everloop.testing.conformance.requests import ENDS, LANES
from everloop.testing.conformance.scene import MINUTE, SECOND, uuid

WORKER = SessionInfo(app="a", kind="worker", host="here", pid=1, lanes=LANES)


@dataclass
class Ledger:
    """What the workers were answered; they only ever append, so threads may share it."""

    added: list[tuple[NewCall, Added]] = field(default_factory=list[tuple[NewCall, Added]])
    leased: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    settled: list[Outcome] = field(default_factory=list[Outcome])
    told: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])


async def check_at_once(factory: Factory, *, seed: int = 0, workers: int = 3, rounds: int = 40) -> None:
    """Let several workers add, lease and settle at once, and check that their answers fit together.

    Raises:
        AssertionError: Two of them were told what only one of them may be told, or a call was lost.
    """
    clock = ManualClock()
    store, ledger = factory(clock), Ledger()
    await store.open()
    try:
        crew = [
            _Worker(number, store.twin(), ledger, Random(f"{seed}/{number}"))  # noqa: S311 - to be repeated
            for number in range(workers)
        ]
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, worker.work(rounds)) for worker in crew))
        clock.advance(2 * MINUTE / SECOND)
        await _drain(store, ledger)
        await _check(store, ledger)
    finally:
        await store.close()


class _Worker:
    """One worker: makes its own calls and children, and runs whatever it gets."""

    def __init__(self, number: int, store: Store, ledger: Ledger, random: Random) -> None:
        self.number = number
        self.store = store
        self.ledger = ledger
        self.random = random
        self.held: list[Leased] = []
        self.minted = 0

    async def work(self, rounds: int) -> None:
        await self.store.open()
        try:
            session = await self.store.open_session(WORKER, MINUTE)
            for number in range(rounds):
                await self._turn(session, number)
                await self._keyed(session, number)
                if self.random.random() < 0.1:
                    some = [id for id, _ in self.ledger.leased[-5:]]
                    await self.store.cancel(some, "enough")
                if self.random.random() < 0.1:
                    session = await self._leave(session)
        finally:
            await self.store.close()

    async def _turn(self, session: int, number: int) -> None:
        ending = [lease for lease in self.held if self.random.random() < 0.7]
        self.held = [lease for lease in self.held if lease not in ending]
        turn = Turn(
            outcomes=[Outcome(lease.id, lease.fence, self.random.choice(ENDS)) for lease in ending],
            adds=self._new(number),
            room=self.random.randint(0, 4),
            lanes=LANES,
        )
        answer = await self.store.turn(session, turn)
        self.ledger.settled += [o for o, done in zip(turn.outcomes, answer.settled, strict=True) if done]
        self.ledger.added += list(zip(turn.adds, answer.added, strict=True))
        self.ledger.leased += [(lease.id, lease.fence) for lease in answer.leased]
        self.ledger.told += [(session, ended.id) for ended in answer.ended]
        # What another transaction holds goes again.
        again = [lease for lease, done in zip(ending, answer.settled, strict=True) if done is None]
        self.held += [*again, *answer.leased]

    def _new(self, number: int) -> list[NewCall]:
        """Make a root, a call that every worker adds, and a child for each held lease."""
        calls = [NewCall(id=self._mint(), lane=LANES[0], args=b"j")]
        calls.append(NewCall(id=uuid(number), lane=LANES[1], args=b"j", told=False))
        for lease in self.held:
            if lease.depth < 3:
                parent = Parent(lease.id, lease.fence)
                key = f"only child {self.minted}" if lease.fence == 1 else "only child 0"
                calls.append(
                    NewCall(
                        id=self._mint(), lane=LANES[0], args=b"j", parent=parent, owned=True, child_key=key
                    )
                )
        return calls

    def _mint(self) -> str:
        self.minted += 1
        return uuid((self.number + 1) * 1_000_000 + self.minted)

    async def _keyed(self, session: int, number: int) -> None:
        """Add a call under a key that every worker uses in this round."""
        key = KeyRule(f"round {number}", "ever")
        call = NewCall(id=self._mint(), lane=LANES[2], args=b"j", key=key, told=False)
        (answer,) = await self.store.add(session, [call])
        while answer.status == "busy":
            await asyncio.sleep(0.001)
            (answer,) = await self.store.add(session, [call])
        self.ledger.added.append((call, answer))

    async def _leave(self, session: int) -> int:
        """Close the session, or let it die, and begin another."""
        if self.random.random() < 0.5:
            await self.store.close_session(session)
        self.held = []
        return await self.store.open_session(WORKER, MINUTE)


async def _drain(store: Store, ledger: Ledger) -> None:
    """Reap who is left, and run everything to its end."""
    await store.reap()
    session = await store.open_session(WORKER, MINUTE)
    outcomes: list[Outcome] = []
    for _ in range(1_000):
        answer = await store.turn(session, Turn(outcomes=outcomes, room=1_000, lanes=LANES))
        ledger.settled += [o for o, done in zip(outcomes, answer.settled, strict=True) if done]
        ledger.leased += [(lease.id, lease.fence) for lease in answer.leased]
        again = [o for o, done in zip(outcomes, answer.settled, strict=True) if done is None]
        outcomes = again + [Outcome(lease.id, lease.fence, Event.SUCCEED) for lease in answer.leased]
        if not outcomes:
            return


async def _check(store: Store, ledger: Ledger) -> None:
    calls = {call.id: call for call in await store.find(CallFilter(limit=1_000_000))}
    left = Counter(call.state for call in calls.values() if not call.state.final)
    same(left, Counter[State](), "calls that have not ended")
    known = {answer.id for _, answer in ledger.added if answer.status in ("added", "exists")}
    same(set(calls), known, "the stored calls and the acknowledged ones")
    _once([answer.id for _, answer in ledger.added if answer.status == "added"], "added")
    _once(ledger.leased, "leased under one fence")
    _once([(outcome.id, outcome.fence) for outcome in ledger.settled], "settled under one fence")
    again = {answer.id for _, answer in ledger.added if answer.status == "exists"}
    _once([told for told in ledger.told if told[1] not in again], "told to one session")
    ran = Counter(
        outcome.id for outcome in ledger.settled if outcome.event not in (Event.RELEASE, Event.REAP)
    )
    same({id: call.attempt for id, call in calls.items() if call.attempt}, dict(ran), "attempts")
    by_key: dict[str, set[str]] = {}
    for call, answer in ledger.added:
        if call.key is not None:
            by_key.setdefault(call.key.value, set()).add(answer.id)
    holds(all(len(ids) == 1 for ids in by_key.values()), f"one call for each key: {by_key}")


def _once(items: list[object] | list[str] | list[tuple[str, int]] | list[tuple[int, str]], what: str) -> None:
    """Fail when something is there twice."""
    twice = [item for item, count in Counter(items).items() if count > 1]
    same(twice, [], f"what was {what} twice")
