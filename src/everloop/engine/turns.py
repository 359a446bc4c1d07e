"""The turn loop: everything a process wants of its store, gathered into one transaction at a time.

This is group commit without a timer. While a turn is in flight, new calls, outcomes and progress
gather; when it returns, all of them go in the next. An idle process has the latency of one round trip,
a busy one puts thousands of rows into a transaction.

When the store fails, nothing is dropped: the same calls and outcomes go again, with the same ids and
fences, so a commit whose answer was lost is repeated without effect. Leases in a lost answer are given
back by the next turn, which says what this process is really `holding`; the ends and cancellations in it
are asked for again (`on_lost_answer`).

When a turn fails for good, one item of it may be to blame. The same items go again in halves, in their
order, until that one goes alone; it is refused, and its neighbours are not.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from everloop._core.calls import Event
from everloop._core.codec import error_record
from everloop._core.errors import ResultNotStorable, StoreUnavailable
from everloop._core.records import (
    Added,
    Cancel,
    Ended,
    Lane,
    Leased,
    NewCall,
    Outcome,
    Progress,
    Turn,
    TurnAnswer,
)
from everloop.store.protocol import Store

log = logging.getLogger("everloop")

#: Calls and outcomes in a turn, at most.
BATCH = 2_000
#: Calls that may wait for a flush before `submit` waits.
UNFLUSHED = 10_000
#: Seconds between looks when no bell rings; bells make it quicker, this makes it true.
POLL = 1.0
#: The same while nothing is leased, because nobody knows whether the session lives.
UNSURE = 0.1
#: Seconds between attempts while the store is away: from, to.
RETRY_FROM, RETRY_TO = 0.05, 2.0
#: Seconds for which turns say what is held after an answer was lost: the transaction whose answer it was may
#: still be under way in the server, and be committed late.
DOUBT = 30.0
#: Seconds before an outcome goes again whose call another transaction holds.
HELD = 0.05
#: Seconds that an ending process waits for a store that is away.
GIVE_UP = 10.0


class Sink(Protocol):
    """Who wants to know what became of one call that was added."""

    def added(self, answer: Added) -> None: ...
    def refused(self, error: Exception) -> None: ...


class Taker(Protocol):
    """Who takes leases: a worker, as the turn loop sees it."""

    def wants(self) -> tuple[int, tuple[Lane, ...]]: ...
    @property
    def takes_roots(self) -> bool: ...
    @property
    def takes_suspects(self) -> bool: ...
    def begin(self, leased: list[Leased]) -> None: ...
    def cancel(self, cancels: list[Cancel]) -> None: ...
    def lost(self, ids: list[str]) -> None: ...


class _Add(NamedTuple):
    call: NewCall
    sink: Sink | None


class _Batch(NamedTuple):
    adds: list[_Add]
    outcomes: list[Outcome]
    progress: list[Progress]

    @property
    def size(self) -> int:
        return len(self.adds) + len(self.outcomes)


class TurnLoop:
    """Gathers requests and makes turns of them, one at a time."""

    def __init__(
        self, store: Store, session: Callable[[], int], on_ended: Callable[[list[Ended]], None]
    ) -> None:
        self._store = store
        self._session = session
        self._on_ended = on_ended
        self.taker: Taker | None = None
        #: Called once the store answers again after an answer was lost.
        self.on_lost_answer: Callable[[], None] = lambda: None
        #: Tells of which calls bodies run here.
        self.holds: Callable[[], tuple[str, ...]] = lambda: ()
        #: Tells whether this process waits for an end: if not, and it takes nothing, it need not poll.
        self.expects: Callable[[], bool] = lambda: True
        #: Tells whether this session surely lives: else what it leases may be another's before it begins.
        self.is_sure: Callable[[], bool] = lambda: True
        self.turns = 0
        # Invariant: in the order of arrival, so that no outcome overtakes a child that its body has added.
        self._items: deque[_Add | Outcome] = deque()
        self._unflushed = 0
        self._unsettled = 0  # outcomes that are not stored yet
        # Outcomes of calls whose rows another transaction holds: they go again after a pause.
        self._held: list[Outcome] = []
        self._running = False
        self._in_flight = False
        self._most = BATCH  # fewer while an item is looked for that makes turns fail
        self._progress: dict[str, Progress] = {}
        self._wake = asyncio.Event()
        self._turn_made: asyncio.Future[None] | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closing = False
        self._closing_at = 0.0
        self._uncertain = False
        self._doubting_until = math.inf  # infinite while there is no doubt
        self._next_due: int | None = None
        self._pause = 0.0
        self._away_since = 0.0
        self._answered_at = asyncio.get_running_loop().time()

    # -- requests ---------------------------------------------------------------------------------------

    def add(self, call: NewCall, sink: Sink | None) -> None:
        """Add a call with the next turn."""
        self._items.append(_Add(call, sink))
        self._unflushed += 1
        self._wake.set()

    def settle(self, outcome: Outcome) -> None:
        """Settle a lease with the next turn."""
        self._items.append(outcome)
        self._unsettled += 1
        self._wake.set()

    def progress(self, progress: Progress) -> None:
        """Store progress with the next turn; only the last report of a call counts."""
        self._progress[progress.id] = progress
        self._wake.set()

    def doubt(self) -> None:
        """Take it that an answer was lost."""
        self._uncertain = True
        self._wake.set()

    def look(self) -> None:
        """Make a turn soon: something may have come."""
        self._wake.set()

    @property
    def away(self) -> bool:
        """Whether the store did not answer the last time."""
        return bool(self._pause)

    @property
    def silence(self) -> float:
        """Seconds since the store answered a turn."""
        return asyncio.get_running_loop().time() - self._answered_at

    @property
    def unflushed(self) -> int:
        """How many calls wait for their commit."""
        return self._unflushed

    async def settled(self) -> None:
        """Wait until every outcome is stored and no lease is under way, or the store is away for too long."""
        if self._in_flight:
            await self._next_turn()
        while self._running and (self._unsettled or self._uncertain) and not self._away_too_long():
            self._wake.set()
            await self._next_turn()

    async def room(self) -> None:
        """Wait until fewer than 10,000 calls are unflushed."""
        while self._unflushed >= UNFLUSHED and not self._closing:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    # -- the loop -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Make turns until closed and everything is flushed."""
        self._running = True
        try:
            while True:
                await self._idle()
                if self._closing and not self._items and not self._held:
                    return
                self._wake.clear()
                await self._turn()
                self._tell_turn()
        finally:
            self._running = False
            self._tell_turn()

    async def _next_turn(self) -> None:
        """Wait for the end of a turn."""
        if self._turn_made is None:
            self._turn_made = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._turn_made)

    def _tell_turn(self) -> None:
        if self._turn_made is not None:
            self._turn_made.set_result(None)
            self._turn_made = None

    def refuse_all(self, error: Exception) -> None:
        """The store could not be opened: tell everybody who waits for it."""
        items, self._items, self._unflushed, self._unsettled = self._items, deque(), 0, 0
        for item in items:
            if isinstance(item, _Add) and item.sink is not None:
                item.sink.refused(error)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiters.clear()

    def close(self) -> None:
        """Flush what is there, then end `run`."""
        self._closing = True
        self._closing_at = asyncio.get_running_loop().time()
        self._wake.set()

    async def _idle(self) -> None:
        """Wait for a request, a bell, the next due call, or the poll."""
        if self._wake.is_set() or (self._closing and not self._held):
            return
        loop = asyncio.get_running_loop()
        seconds = self._idle_seconds()
        timer = None if seconds is None else loop.call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _idle_seconds(self) -> float | None:
        if self.taker is None and not self.expects():
            return None
        poll = POLL if self.is_sure() else UNSURE
        poll *= 0.9 + 0.2 * random.random()  # noqa: S311 - spreads processes
        if self._next_due is None or self.taker is None:
            return poll
        return min(poll, max(0.001, (self._next_due - self._store.now()) / 1e6))

    async def _turn(self) -> None:
        batch = self._collect()
        request = self._request(batch)
        self._in_flight = True
        session = self._session()
        try:
            answer = await self._store.turn(session, request)
        except asyncio.CancelledError:
            # The loop is ending: the turn may still be committed, its answer is lost.
            self._uncertain = True
            self._put_back(batch)
            raise
        except StoreUnavailable as error:
            await self._later(batch, error)
        except Exception as error:  # noqa: BLE001 - whatever one item did, this loop serves all others
            await self._halve(batch, error)
        else:
            if session == self._session() and (self.is_sure() or not answer.leased):
                self._answered(batch, answer)
            elif session == self._session():
                # This process has stood still: what was leased meanwhile may be running elsewhere by now. The
                # next turn gives it back, as what this process does not know of.
                self._answered(batch, msgspec.structs.replace(answer, leased=[]))
                self.doubt()
            else:
                # It went in the name of one that was reaped meanwhile: what that leased is others' now, and
                # nobody tells it of any end.
                self._answered(batch, msgspec.structs.replace(answer, leased=[]))
                self.on_lost_answer()
        finally:
            self._in_flight = False
        self.turns += 1

    def _answered(self, batch: _Batch, answer: TurnAnswer) -> None:
        lost, self._uncertain = self._uncertain, False
        self._pause = 0.0
        self._answered_at = asyncio.get_running_loop().time()
        self._most = min(BATCH, 2 * self._most)
        held = [o for o, settled in zip(batch.outcomes, answer.settled, strict=True) if settled is None]
        self._unsettled -= len(batch.outcomes) - len(held)
        if held:
            self._held += held
            asyncio.get_running_loop().call_later(HELD, self._again)
        self._distribute(batch, answer)
        if lost or self._doubting_until < asyncio.get_running_loop().time():
            if not lost:
                # What was committed late may have ended calls, and told it in the answer that was lost.
                self._doubting_until = math.inf
            self.on_lost_answer()

    def _again(self) -> None:
        """Settle what was held by another transaction; an ending process tries for a bounded time."""
        if self._closing and asyncio.get_running_loop().time() - self._closing_at > GIVE_UP:
            self._unsettled -= len(self._held)
            log.error(
                "everloop: ended with %d outcomes not stored (those calls run again): transactions that are "
                "still open hold their rows",
                len(self._held),
            )
            self._held.clear()
        self._items.extendleft(reversed(self._held))
        self._held.clear()
        self._wake.set()

    def _collect(self) -> _Batch:
        items = self._items
        batch = _Batch([], [], list(self._progress.values()))
        self._progress.clear()
        for _ in range(min(len(items), self._most)):
            item = items.popleft()
            if isinstance(item, _Add):
                batch.adds.append(item)
            else:
                batch.outcomes.append(item)
        self._unflushed -= len(batch.adds)
        if items:
            self._wake.set()
        self._let_in()
        return batch

    def _let_in(self) -> None:
        """Let as many waiting submitters go on as there is room for."""
        room = UNFLUSHED - self._unflushed
        while self._waiters and room > 0:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                room -= 1

    def _request(self, batch: _Batch) -> Turn:
        taker = self.taker
        holding = None
        if self._uncertain:
            self._doubting_until = asyncio.get_running_loop().time() + DOUBT
        if self._uncertain or self._doubting_until < math.inf:
            # Bodies that run, and ended ones whose outcome waits for a later turn.
            waiting = [item.id for item in [*self._items, *self._held] if isinstance(item, Outcome)]
            holding = (*self.holds(), *waiting)
        room, lanes = taker.wants() if taker is not None else (0, ())
        return Turn(
            outcomes=batch.outcomes,
            adds=[call for call, _ in batch.adds],
            progress=batch.progress,
            room=room if self._most == BATCH and self.is_sure() else 0,
            lanes=lanes,
            roots=taker.takes_roots if taker else True,
            suspects=taker.takes_suspects if taker else False,
            holding=holding,
        )

    def _distribute(self, batch: _Batch, answer: TurnAnswer) -> None:
        for (_, sink), added in zip(batch.adds, answer.added, strict=True):
            if sink is not None:
                sink.added(added)
        taker = self.taker
        if taker is not None:
            lost = [o.id for o, ok in zip(batch.outcomes, answer.settled, strict=True) if ok is False]
            if lost:
                taker.lost(lost)
            if answer.cancels:
                taker.cancel(answer.cancels)
        if answer.ended:
            self._on_ended(answer.ended)
        if answer.leased:
            self._begin(answer.leased)
        self._next_due = answer.next_due
        if answer.more:
            self._wake.set()

    def _begin(self, leased: list[Leased]) -> None:
        if self.taker is not None:
            self.taker.begin(leased)
            return
        # The worker ended while this turn was under way: the next one gives them back.
        for each in leased:
            self.settle(Outcome(each.id, each.fence, Event.RELEASE))

    # -- failures -----------------------------------------------------------------------------------------

    async def _later(self, batch: _Batch, error: Exception) -> None:
        """Put everything back in its order and try again after a pause."""
        loop = asyncio.get_running_loop()
        if not self._pause:
            self._away_since = loop.time()
            log.warning("everloop: the store does not answer (%s); going on when it does", error)
        if self._closing and self._away_too_long():
            self._give_up(batch, error)
            return
        self._uncertain = True
        self._put_back(batch)
        self._pause = min(RETRY_TO, (self._pause or RETRY_FROM) * 2)
        await asyncio.sleep(self._pause * (0.5 + random.random()))  # noqa: S311 - spreads processes

    def _away_too_long(self) -> bool:
        return bool(self._pause) and asyncio.get_running_loop().time() - self._away_since > GIVE_UP

    def _give_up(self, batch: _Batch, error: Exception) -> None:
        """The process is ending and the store is away: say what is not stored."""
        self._put_back(batch)
        log.error(
            "everloop: ended without the store: %d calls were not submitted, %d outcomes not stored (those "
            "calls run again)",
            self._unflushed,
            self._unsettled,
        )
        self.refuse_all(error)

    def _put_back(self, batch: _Batch) -> None:
        self._items.extendleft(reversed(batch.outcomes))
        self._items.extendleft(reversed(batch.adds))
        self._unflushed += len(batch.adds)
        for progress in batch.progress:
            self._progress.setdefault(progress.id, progress)
        self._wake.set()

    async def _halve(self, batch: _Batch, error: Exception) -> None:
        """A turn failed for good: send its items again in smaller turns, and refuse one that fails alone.

        Progress is dropped first: it is not worth a search, and the next report replaces it.
        """
        self._uncertain = True
        if batch.progress:
            log.warning("everloop: a turn failed (%s); trying it without its reports of progress", error)
            batch.progress.clear()
            self._put_back(batch)
        elif batch.size == 0:
            await self._later(batch, error)
        elif batch.size > 1:
            if self._most == BATCH:
                log.error("everloop: a turn failed (%s); looking for the item that makes it fail", error)
            self._most = batch.size // 2
            self._put_back(batch)
        elif batch.adds:
            sink = batch.adds[0].sink
            if sink is not None:
                sink.refused(error)
        else:
            await self._fail_instead(batch.outcomes[0], error)

    async def _fail_instead(self, outcome: Outcome, error: Exception) -> None:
        """An outcome cannot be stored: its call has run, so it fails with that reason."""
        log.error("everloop: the outcome of call %s cannot be stored: %s", outcome.id, error)
        record = error_record(ResultNotStorable, f"it ran, and its outcome cannot be stored: {error}")
        if outcome.error == record:
            await self._later(_Batch([], [outcome], []), error)  # it is not the outcome, then
        else:
            self._put_back(_Batch([], [Outcome(outcome.id, outcome.fence, Event.FAIL, error=record)], []))
