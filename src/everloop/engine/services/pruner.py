"""The pruner: deletes what is kept for too long, a page at a time, while a worker runs.

Every worker has one. The store lets one of them begin a sweep in each interval; two at once would do no
harm. Between two pages it pauses for several times as long as the page took, so that it never takes more
than its share of the store.
"""

from __future__ import annotations

import asyncio
import logging
import random

from everloop._core.errors import StoreError
from everloop._core.keeping import Pruned, Pruning
from everloop.store.protocol import Store

log = logging.getLogger("everloop")

#: Seconds between sweeps of one app, whoever makes them.
EVERY = 300.0
#: Seconds after its start in which a worker has better things to do.
FIRST = 1.0
#: How much longer than a page the pause after it is.
PAUSE = 4.0


class Pruner:
    """Sweeps the calls of one app from time to time.

    Args:
        store: An open store.
        request: What is kept for too long; its `every` is the time between sweeps.
    """

    def __init__(self, store: Store, request: Pruning) -> None:
        self._store = store
        self._request = request
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Sweep from now on. Idempotent."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="everloop-pruner")

    async def stop(self) -> None:
        """Sweep no more; what a page has deleted stays so. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        every = self._request.every / 1e6
        await asyncio.sleep(min(FIRST, every))
        while True:
            try:
                done = await self.sweep()
            except StoreError as error:
                log.debug("everloop: what is kept for too long could not be pruned now: %s", error)
            else:
                if done.calls or done.results:
                    log.info("everloop: pruned %d calls and %d results", done.calls, done.results)
            await asyncio.sleep(every * (0.9 + 0.2 * random.random()))  # noqa: S311 - spreads processes

    async def sweep(self) -> Pruned:
        """Make one sweep, if it is due; return what went.

        Raises:
            StoreError: The store failed; the next sweep begins anew.
        """
        calls = results = 0
        request: Pruning | None = self._request
        clock = asyncio.get_running_loop().time
        while request is not None:
            began = clock()
            done = await self._store.prune(request)
            calls, results, request = calls + done.calls, results + done.results, done.next
            if request is not None:
                await asyncio.sleep(PAUSE * (clock() - began))
        return Pruned(calls, results)
