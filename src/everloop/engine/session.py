"""The session: one process's (and one loop's) open line to the store."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal, Protocol
from weakref import ref

from everloop._core.errors import StoreError
from everloop._core.keeping import Pruning
from everloop._core.looks import Gauges
from everloop._core.records import Cancel, Ended, Lane, SessionInfo
from everloop.engine import capture
from everloop.engine.apart import Apart
from everloop.engine.executor import Runnable
from everloop.engine.gauges import read_gauges
from everloop.engine.keeper import STALL_LIMIT, Keeper
from everloop.engine.scribe import Scribe
from everloop.engine.services.pruner import Pruner
from everloop.engine.turns import RETRY_TO, Sink, TurnLoop
from everloop.engine.worker import Worker
from everloop.store.protocol import Foretelling, Store

log = logging.getLogger("everloop")

#: Seconds for which a session lives without renewal: a dead worker's calls are taken over after it.
LEASE = 10.0


class Waiter(Sink, Protocol):
    """Who waits for the end of a call; several may wait for one."""

    id: str
    next_waiter: Waiter | None

    def ended(self, end: Ended) -> None: ...
    def abandoned(self) -> None: ...
    def asked(self, *, known: bool) -> None: ...
    def unanswered(self, error: Exception) -> None: ...


class _Seen(ref[Waiter]):
    """A waiter that is not kept alive; a `WeakValueDictionary` costs five times as much per call."""

    __slots__ = ("id",)
    id: str


class Session:
    """Opens a session, makes its turns, and tells waiters what happened.

    Args:
        store: An open store.
        app: The app's name.
        lease: Seconds for which the session lives without renewal.
        stall_limit: Seconds for which its loop may be blocked, or None.
        processes: How many bodies its worker runs in processes of their own at once.
        pruning: What the worker prunes from time to time, if anything.
        logs: The lowest level of what its bodies log that is kept; None keeps nothing of it.
        dead: Sessions of others whose processes are known to have died, and how; it may grow.
    """

    def __init__(
        self,
        store: Store,
        app: str,
        *,
        lease: float = LEASE,
        stall_limit: float | None = STALL_LIMIT,
        processes: int = 1,
        pruning: Pruning | None = None,
        logs: int | None = None,
        dead: dict[int, str] | None = None,
    ) -> None:
        self.store = store
        self.app = app
        self.number = 0
        self.worker: Worker | None = None
        self._left_behind: list[Worker] = []  # that have ended, and had bodies which did not
        self.closing = False  # whoever waits now waits no longer, and the calls go on
        self._left = False  # nothing is flushed any more: a session that is lost now needs no successor
        self.turns = TurnLoop(store, lambda: self.number, self._ended)
        self.turns.expects = lambda: self.waiting
        self.turns.holds = self._holding
        self.turns.on_lost_answer = self._after_lost_answer
        self.turns.is_sure = lambda: self._keeper is None or self._keeper.is_sure
        self.apart = Apart(store, lambda: self.number, self.turns.look, self._waited)
        self._dead: dict[int, str] = {} if dead is None else dead
        self._pruner = None if pruning is None else Pruner(store, pruning)
        self._logs = logs
        self._scribe: Scribe | None = None
        self._lease = lease
        self._stall_limit = stall_limit
        self._processes = processes
        # Who waits for which id: `_held` keeps its waiters alive, because somebody awaits them; `_seen` does
        # not: a submitted task that nobody keeps needs no telling.
        # Invariant: an id is in at most one of the two; further waiters of it hang on the first.
        self._held: dict[str, Waiter] = {}
        self._seen: dict[str, _Seen] = {}
        self._keeper: Keeper | None = None
        self._stop_listening: Callable[[], None] | None = None
        self._loop_task: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None

    # -- opening and closing ----------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the session in the store and start its turn loop and its keeper."""
        await self._enter()
        self._loop_task = asyncio.get_running_loop().create_task(self.turns.run(), name="everloop-turns")
        self.apart.start()

    def fail(self, error: Exception) -> None:
        """It could not be opened: tell everybody who waits for it."""
        self.turns.refuse_all(error)
        self.apart.fail(error)

    async def room(self) -> None:
        """Wait until fewer than 10,000 calls are unflushed, in turns and apart from them."""
        await self.turns.room()
        await self.apart.room()

    async def start_worker(self, functions: Mapping[Lane, Runnable], concurrency: int) -> Worker:
        """Serve these functions from this session, too."""
        if self.worker is None:
            self._capture()
            self.worker = Worker(
                self.turns, functions, concurrency, self.store.now, self._processes, self._scribe
            )
        else:
            self.worker.add_functions(functions)
        await self.store.serve(self.number, self._info())
        self._listen()
        self.turns.taker = self.worker
        if self._pruner is not None:
            self._pruner.start()
        self.turns.look()
        return self.worker

    async def stop_worker(self, grace: float) -> None:
        """Drain the worker, settle what it did, and serve no more."""
        if self.worker is None:
            return
        await self._drain(self.worker, grace)
        await self.turns.settled()
        try:
            await self.store.serve(self.number, self._info())
        except StoreError as error:
            log.warning("everloop: the store was not told that this worker ends (%s)", error)

    async def _drain(self, worker: Worker, grace: float) -> None:
        if self._pruner is not None:
            await self._pruner.stop()
        await worker.drain(grace)
        self.turns.taker = None
        self.worker = None
        self._left_behind = [each for each in [*self._left_behind, worker] if each.holding]
        if self._scribe is not None:
            scribe, self._scribe = self._scribe, None
            capture.end()
            await scribe.close()

    def _capture(self) -> None:
        if self._logs is not None and self._scribe is None:
            self._scribe = Scribe(self.store, self._logs)
            capture.begin()

    async def close(self, grace: float = 0.0) -> None:
        """Drain, flush, and end the session; its leases are released and nothing is cancelled."""
        self.closing = True
        if self.worker is not None:
            await self._drain(self.worker, grace)
        await self.apart.close()
        self.turns.close()
        if self._loop_task is not None:
            await asyncio.wait([self._loop_task])
            if self._loop_task.cancelled():
                # `asyncio.run` cancels every task before it lets anybody clean up.
                await self.turns.run()
        await self.apart.close()  # what was cancelled before it was stored is asked to end only now
        self._left = True
        for task in (self._recovery, self._asking):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])
        await self._leave()
        for waiter in [*self._held.values(), *filter(None, (seen() for seen in list(self._seen.values())))]:
            waiter.abandoned()  # the waiting ends; the call goes on
        try:
            await self.store.close_session(self.number)
        except StoreError as error:
            log.warning("everloop: the session could not be closed (%s); it expires by itself", error)

    async def _enter(self) -> None:
        asked = time.monotonic()
        self.number = await self.store.open_session(self._info(), round(self._lease * 1_000_000))
        self._listen()
        self._keeper = Keeper(
            self.store.twin(),
            self.number,
            asked,
            self._lease,
            self._was_reaped,
            self._stall_limit,
            self._gauges,
            self._dead,
        )
        self._keeper.start()

    def _workers(self) -> list[Worker]:
        """Return whose bodies run here."""
        return [*self._left_behind, *([] if self.worker is None else [self.worker])]

    def _holding(self) -> tuple[str, ...]:
        return tuple(id_ for worker in self._workers() for id_ in worker.holding)

    def _gauges(self, lag: float) -> Gauges | None:
        worker = self.worker
        return None if worker is None else read_gauges(worker, lag)

    def look_for_the_dead(self) -> None:
        """Take over at once from those that are known to have died."""
        if self._keeper is not None:
            self._keeper.look()

    async def _leave(self) -> None:
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper = None

    def _listen(self) -> None:
        if self._stop_listening is not None:
            self._stop_listening()
        if isinstance(self.store, Foretelling):
            self.store.foretell(self.number, self._ended)
        self._stop_listening = self.store.listen(self.number, self.turns.look)

    def _info(self) -> SessionInfo:
        lanes = self.worker.lanes if self.worker is not None else ()
        kind: Literal["worker", "client"] = "worker" if self.worker is not None else "client"
        return SessionInfo(app=self.app, kind=kind, host=socket.gethostname(), pid=os.getpid(), lanes=lanes)

    # -- a lost session -----------------------------------------------------------------------------------

    def _was_reaped(self) -> None:
        """Others hold our leases now: give up what runs, open a new session, and wait anew."""
        if not self._left and (self._recovery is None or self._recovery.done()):
            log.warning("everloop: this process was away for longer than its lease; opening a new session")
            self._recovery = asyncio.get_running_loop().create_task(self._recover(), name="everloop-recover")

    async def _recover(self) -> None:
        for worker in self._workers():
            worker.drop_all()
        await self._leave()
        while True:
            try:
                await self._enter()
            except (StoreError, OSError) as error:  # it may be that no descriptor is left for its bell
                log.warning("everloop: no new session yet (%s); trying again", error)
                await self._leave()
                await asyncio.sleep(RETRY_TO)
            else:
                break
        self._ask_for_ends()
        self.turns.look()

    # -- a lost answer ------------------------------------------------------------------------------------

    def _after_lost_answer(self) -> None:
        """Ends and cancellations were in it, perhaps: the store hands each out once, so ask for them."""
        self._ask_for_ends()
        if self.worker is not None and (self._asking is None or self._asking.done()):
            asking = self._ask_for_cancellations(self.worker)
            self._asking = asyncio.get_running_loop().create_task(asking, name="everloop-ask")

    def _ask_for_ends(self) -> None:
        for id_ in [*self._held, *self._seen]:
            self.apart.wait(id_)

    async def _ask_for_cancellations(self, worker: Worker) -> None:
        try:
            found = await self.store.get(worker.holding)
        except StoreError:
            self.turns.doubt()  # and so ask again, once it answers
            return
        asked = ((call, call.cancel_asked) for call in found if call is not None)
        worker.cancel(
            [Cancel(call.id, call.fence, message) for call, message in asked if message is not None]
        )

    @property
    def is_kept(self) -> bool:
        """Whether its leases are renewed, or about to be again."""
        return self._keeper is None or self._keeper.is_alive or self.closing

    # -- waiters ------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether somebody here waits for the end of a call."""
        return bool(self._held or self._seen)

    def watch(self, waiter: Waiter, *, hold: bool) -> None:
        """Remember who waits for the end of `waiter.id`; with `hold`, keep it alive until then."""
        first = self._first(waiter.id)
        if first is None:
            if hold:
                self._held[waiter.id] = waiter
            else:
                seen = self._seen[waiter.id] = _Seen(waiter, self._forget)
                seen.id = waiter.id
        elif first is not waiter:
            # The first is the others' only way to be told: keep it.
            waiter.next_waiter, first.next_waiter = first.next_waiter, waiter
            self.hold(first)

    def hold(self, waiter: Waiter) -> None:
        """Keep a waiter alive until its end: somebody awaits it."""
        seen = self._seen.get(waiter.id)
        if seen is not None and seen() is waiter:
            del self._seen[waiter.id]
            self._held[waiter.id] = waiter

    def unwatch(self, waiter: Waiter) -> None:
        """Forget a waiter that is done; those behind it stay."""
        first = self._first(waiter.id)
        if first is waiter:
            self._held.pop(waiter.id, None)
            self._seen.pop(waiter.id, None)
            if waiter.next_waiter is not None:
                self._held[waiter.id] = waiter.next_waiter
                waiter.next_waiter = None
            return
        while first is not None and first.next_waiter is not waiter:
            first = first.next_waiter
        if first is not None:
            first.next_waiter, waiter.next_waiter = waiter.next_waiter, None

    def _first(self, id_: str) -> Waiter | None:
        first = self._held.get(id_)
        if first is None and (seen := self._seen.get(id_)) is not None:
            return seen()
        return first

    def _forget(self, seen: _Seen) -> None:
        """Nobody keeps this waiter any more: whether its call ends need not be told."""
        if self._seen.get(seen.id) is seen:
            del self._seen[seen.id]

    def runs(self, id_: str) -> bool:
        """Tell whether the body of this call runs here."""
        return self.worker is not None and self.worker.runs(id_)

    def rename(self, waiter: Waiter, id_: str) -> None:
        """Let it wait for another call, the one that it has joined."""
        held = waiter.id in self._held
        self.unwatch(waiter)
        waiter.id = id_
        self.watch(waiter, hold=held)

    def _ended(self, ends: list[Ended]) -> None:
        held, seen = self._held, self._seen
        for end in ends:
            waiter = held.pop(end.id, None)
            if waiter is None and (known := seen.pop(end.id, None)) is not None:
                waiter = known()
            while waiter is not None:
                following, waiter.next_waiter = waiter.next_waiter, None
                waiter.ended(end)
                waiter = following

    def _waited(self, ids: Sequence[str], unknown: AbstractSet[str], error: Exception | None) -> None:
        for id_ in ids:
            waiter = self._first(id_)
            while waiter is not None:
                following = waiter.next_waiter  # it may go
                if error is not None:
                    waiter.unanswered(error)
                else:
                    waiter.asked(known=id_ not in unknown)
                waiter = following
