"""The keeper: a thread that keeps the session alive whatever the user's loop does.

It has a loop and a connection of its own. It renews the session, reaps dead ones, and does the store's
upkeep. Blocking code in a task therefore keeps its lease for as long as its process lives, up to the
stall limit: past that, nothing here can tell a blocked loop from a dead one, and the process is ended so
that another may go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

from everloop._core.errors import StoreUnavailable
from everloop._core.looks import Gauges
from everloop.engine.processes.ends import STALLED
from everloop.store.protocol import Store

log = logging.getLogger("everloop")

#: Seconds between looks at dead sessions and at the store's upkeep.
TICK = 1.0
#: Seconds that whoever stops gives a look that is under way.
LEAVE_S = 0.2
#: A loop that has not answered for so many seconds is reported with its stack.
STALL_REPORT = 5.0
#: A worker whose loop has not answered for so many seconds is ended.
STALL_LIMIT = 600.0


class Witness:
    """Tells whether its owner may call other sessions late.

    While the store was away, or only slow, nobody could renew: once it is back, everybody is late by its
    clock, and whoever asks first would reap the living. So only one who has seen the store answer for a
    while, without a longer silence in between, may judge: by then the living have renewed. A clock that was
    set forward, or a machine that has slept, makes everybody late in the same way.

    Args:
        patience: Seconds of silence that begin it anew; it has to have answered for twice as long.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since = 0.0
        self._last = -math.inf
        self._ahead: float | None = None  # of this machine's monotonic clock, the store's

    def compared(self, theirs: float, now: float) -> bool:
        """Note what the store's clock says; return whether that was set since the last time."""
        before, self._ahead = self._ahead, theirs - now
        was_set = before is not None and abs(self._ahead - before) > self._patience
        if was_set:
            self.failed()
        return was_set

    def answered(self, now: float) -> None:
        """Note that the store has just answered."""
        if now - self._last > self._patience:
            self._since = now
        self._last = now

    def failed(self) -> None:
        """Note that it did not."""
        self._last = -math.inf

    def may_judge(self, now: float) -> bool:
        """Whether who is late now is dead."""
        return now - self._last <= self._patience <= (self._last - self._since) / 2


class Keeper:
    """Renews one session from a thread of its own.

    Args:
        store: An unopened twin of the session's store.
        session: The session's number.
        asked: When it was asked to be opened (`time.monotonic`): it lives for a lease from then on, at least.
        lease: Seconds for which each renewal keeps the session alive.
        lost: Called on the owner's loop when the session was reaped.
        stall_limit: Seconds without an answer of the loop after which a worker's process is ended, or None.
        gauges: Tells of the worker, when given the seconds that its loop has let others wait; None when there
            is no worker. Called in the keeper's thread.
        dead: Sessions whose processes are known to have died, and how; each goes out of it when it is reaped.
    """

    def __init__(
        self,
        store: Store,
        session: int,
        asked: float,
        lease: float,
        lost: Callable[[], None],
        stall_limit: float | None,
        gauges: Callable[[float], Gauges | None] = lambda _: None,
        dead: dict[int, str] = {},  # noqa: B006 - nobody adds to this one
    ) -> None:
        self._store = store
        self._session = session
        self._lease = lease
        self._lost = lost
        self._stall_limit = stall_limit
        self._gauges = gauges
        self._dead = dead
        self._lag = 0.0  # the longest that the loop took to answer, since the last renewal
        self._owner = asyncio.get_running_loop()
        self._owner_thread = threading.get_ident()
        self._asked_at: float | None = None  # since when the owner's loop owes an answer
        self._reported = False
        # Surely: the answers to what was asked then may have been on their way for longer than a lease.
        self._kept_until = asked + lease
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="everloop-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    @property
    def is_sure(self) -> bool:
        """Whether nobody may have reaped the session: the last renewal is younger than a lease.

        It is not while the store is away, nor for a moment after this process has stood still.
        """
        return time.monotonic() < self._kept_until

    def stop(self) -> None:
        """End the thread; waits for the verb in flight, but not for a server that says nothing."""
        self._stop.set()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(self._leave)
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Look at once whether somebody has died."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(self._woken.set)

    # -- in the thread ----------------------------------------------------------------------------------

    def _main(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # by `_leave`
            asyncio.run(self._keep())

    def _leave(self) -> None:
        self._woken.set()
        if self._loop is not None and self._task is not None:
            # A verb in flight is done all the same: closing the store waits for it.
            self._loop.call_later(LEAVE_S, self._task.cancel)

    async def _keep(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        try:
            await self._keep_until_stopped(self._loop)
        finally:
            await self._store.close()

    async def _keep_until_stopped(self, loop: asyncio.AbstractEventLoop) -> None:
        # Everybody looks once in each tick, and has to connect, too.
        witness = Witness(max(self._lease / 3, 2 * TICK))
        next_renewal = 0.0
        while not self._stop.is_set():
            now = time.monotonic()
            try:
                if witness.compared(self._store.now() / 1e6, now) or now >= next_renewal:
                    await self._store.open()
                    if not await self._renew():
                        return
                    self._kept_until = now + self._lease
                    # Not `now`: the store may have taken its time.
                    witness.answered(time.monotonic())
                    next_renewal = now + self._lease / 3
                await self._reap(overdue=witness.may_judge(time.monotonic()))
                await self._store.tend()
                witness.answered(time.monotonic())
            except Exception as error:  # whatever it is, the session has to be kept alive
                witness.failed()
                next_renewal = 0.0
                if isinstance(error, StoreUnavailable | OSError):
                    log.debug("everloop: the keeper could not reach the store: %s", error)
                else:
                    log.exception("everloop: the keeper fails; it goes on")
            self._watch_loop()
            timer = loop.call_later(min(TICK, self._lease / 3), self._woken.set)
            await self._woken.wait()
            self._woken.clear()
            timer.cancel()

    async def _renew(self) -> bool:
        lag, self._lag = max(self._lag, self._silence() or 0.0), 0.0
        alive = await self._store.renew(self._session, round(self._lease * 1_000_000), self._gauges(lag))
        if not alive:
            self._call_owner(self._lost)
        return alive

    async def _reap(self, *, overdue: bool) -> None:
        dead = dict(self._dead)
        await self._store.reap(overdue=overdue, dead=dead)
        for session in dead:
            self._dead.pop(session, None)

    def _watch_loop(self) -> None:
        """Ask the owner's loop for an answer; report, and in the end give up, one that gives none."""
        silent = self._silence()
        if silent is None:
            self._asked_at = time.monotonic()
            self._call_owner(self._answer)
            return
        if silent > STALL_REPORT and not self._reported:
            self._reported = True
            frame = sys._current_frames().get(self._owner_thread)  # noqa: SLF001 - documented, if underscored
            stack = "".join(traceback.format_stack(frame)) if frame else "(no stack)"
            log.warning(
                "everloop: the event loop has not answered for %.0f s; it is here:\n%s", silent, stack
            )
        if self._stall_limit is None or silent <= self._stall_limit:
            return
        # A client has nothing that another process could go on with: it may block its loop for as long as it
        # likes.
        if self._gauges(silent) is not None:
            log.critical("everloop: the event loop has not answered for %.0f s; ending this process", silent)
            faulthandler.dump_traceback(all_threads=True)
            os._exit(STALLED)

    def _silence(self) -> float | None:
        """Return for how long the owner's loop owes an answer; None when it owes none."""
        asked_at = self._asked_at  # once: the owner's thread sets it, too
        return None if asked_at is None else time.monotonic() - asked_at

    def _answer(self) -> None:
        self._lag = max(self._lag, self._silence() or 0.0)
        self._asked_at = None
        self._reported = False

    def _call_owner(self, callback: Callable[[], None]) -> None:
        try:
            self._owner.call_soon_threadsafe(callback)
        except RuntimeError:
            self._stop.set()  # the owner's loop is closed
