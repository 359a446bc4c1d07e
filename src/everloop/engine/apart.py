"""Requests that travel apart from the turns: calls with a key or a chosen id, cancellations, and who waits.

A turn never waits for the row of a key, or for an id, which a transaction of a user may hold; and a request
about calls of others need not wait for a turn. Each kind has a group commit of its own. All of them may be
repeated without effect, so while the store is away they are asked again until it answers.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import NamedTuple, TypeVar

from everloop._core.errors import StoreUnavailable
from everloop._core.records import Added, NewCall, Parent
from everloop.engine import turns
from everloop.engine.batcher import AGAIN, Again, Batcher
from everloop.store.protocol import Store

log = logging.getLogger("everloop")

T = TypeVar("T")

#: Requests in one transaction, at most.
BATCH = 1_000
#: Seconds after which it is said that requests wait for the store: the turns, which say so, may go on.
SILENT = 5.0


class _Add(NamedTuple):
    call: NewCall
    sink: turns.Sink


class _Cancel(NamedTuple):
    id: str
    message: str
    parent: Parent | None


class Apart:
    """Sends a session's requests that do not go with its turns.

    Args:
        store: The session's store.
        session: Tells the session's number.
        look: Asks for a turn: an answer may have come.
        waited: Told which calls were asked for by `wait`, and which of them the store does not know; or why
            it could not be asked.
    """

    def __init__(
        self,
        store: Store,
        session: Callable[[], int],
        look: Callable[[], None],
        waited: Callable[[Sequence[str], AbstractSet[str], Exception | None], None],
    ) -> None:
        self._store = store
        self._session = session
        self._look = look
        self._waited = waited
        self._opened = asyncio.Event()
        self._failure: Exception | None = None
        self._closing = False
        self._closing_at = 0.0
        self._keyed = Batcher(self._add, most=BATCH, name="keyed")
        self._named = Batcher(self._add, most=BATCH, name="named")
        self._cancels = Batcher(self._cancel, most=BATCH, name="cancel")
        self._waits = Batcher(self._wait, most=BATCH, name="wait")

    def start(self) -> None:
        """The session is open: send what has gathered."""
        self._opened.set()

    def fail(self, error: Exception) -> None:
        """The session could not be opened: refuse what has gathered."""
        self._failure = error
        self._opened.set()

    def add(self, call: NewCall, sink: turns.Sink) -> asyncio.Future[None]:
        """Add a call with a key or a chosen id; the future is done when `sink` knows what became of it."""
        return (self._named if call.named else self._keyed).ask(_Add(call, sink))

    async def room(self) -> None:
        """Wait until fewer than 10,000 calls of each kind wait to be added."""
        for batcher in (self._keyed, self._named):
            await batcher.room(turns.UNFLUSHED)

    def cancel(self, id_: str, message: str, parent: Parent | None = None) -> None:
        """Ask for the end of a call; where a parent asks, under its lease."""
        # A lone surrogate can be no text of a database.
        _ = self._cancels.ask(_Cancel(id_, message.encode("utf-8", "backslashreplace").decode(), parent))

    def wait(self, id_: str) -> None:
        """Ask to be told of the end of a call, also when it has ended."""
        _ = self._waits.ask(id_)

    async def close(self) -> None:
        """Send everything, within a bounded time."""
        self._closing = True
        self._closing_at = asyncio.get_running_loop().time()
        for batcher in (self._keyed, self._named, self._cancels, self._waits):
            await batcher.idle()

    # -- flushes; they never raise --------------------------------------------------------------------------

    async def _add(self, items: Sequence[_Add]) -> list[Again | None]:
        session = 0

        def add() -> Awaitable[list[Added]]:
            nonlocal session
            session = self._session()
            return self._store.add(session, [item.call for item in items])

        try:
            answers = await self._answer(add)
        except Exception as error:  # noqa: BLE001 - it belongs to who asked
            if len(items) == 1 or isinstance(error, StoreUnavailable) or self._failure is not None:
                for item in items:
                    item.sink.refused(error)
            else:  # one of them makes it fail: spare its neighbours
                half = len(items) // 2
                return [*await self._add(items[:half]), *await self._add(items[half:])]
        else:
            # At once, without a step of the loop in between: the next turn may tell the end of a call
            # that was joined.
            again = [self._tell(item, answer) for item, answer in zip(items, answers, strict=True)]
            self._look()
            self._ask_for_ends(items, answers, lost=session != self._session())
            return again
        return [None] * len(items)

    def _ask_for_ends(self, items: Sequence[_Add], answers: Sequence[Added], *, lost: bool) -> None:
        """Ask for ends that may have been told to nobody.

        A session that was reaped meanwhile is told of none. That of a call which was joined may have come
        with a turn before this answer: until then nobody here knew that somebody waits for it.
        """
        for item, answer in zip(items, answers, strict=True):
            if lost or (answer.status == "exists" and answer.id != item.call.id):
                self.wait(answer.id)

    def _tell(self, item: _Add, answer: Added) -> Again | None:
        """Tell what became of a call; ask again for one whose key or id an open transaction has."""
        if answer.status != "busy":
            item.sink.added(answer)
            return None
        if not self._given_up():
            return AGAIN
        item.sink.refused(
            StoreUnavailable(
                "the app is closing, and the call was not submitted: a transaction that is still open has "
                "submitted a call with the same key or id"
            )
        )
        return None

    def _given_up(self) -> bool:
        return self._closing and asyncio.get_running_loop().time() - self._closing_at > turns.GIVE_UP

    async def _cancel(self, items: Sequence[_Cancel]) -> list[None]:
        by_message: dict[str, list[_Cancel]] = {}
        for item in items:
            by_message.setdefault(item.message, []).append(item)
        for message, asks in by_message.items():
            ids, parents = [ask.id for ask in asks], [ask.parent for ask in asks]
            cancel = partial(self._store.cancel, ids, message, parents)
            try:
                # Who asked under a lease that was lost is told of that as of every lost lease: it is stopped.
                await self._answer(cancel)
            except Exception as error:  # noqa: BLE001 - nobody awaits it: it is said
                _say(f"{len(ids)} calls could not be cancelled", error)
            else:
                self._look()
        return [None] * len(items)

    async def _wait(self, ids: Sequence[str]) -> list[None]:
        def wait() -> Awaitable[list[str]]:
            return self._store.wait(self._session(), ids)  # a session that was reaped has a successor

        try:
            unknown = await self._answer(wait)
        except Exception as error:  # noqa: BLE001 - nobody awaits it: it is said
            _say(f"{len(ids)} calls cannot be waited for", error)
            self._waited(ids, frozenset(), error)
        else:
            self._waited(ids, frozenset(unknown), None)
            self._look()
        return [None] * len(ids)

    async def _answer(self, request: Callable[[], Awaitable[T]]) -> T:
        """Ask until the store answers; when the process is ending, for a bounded time."""
        await self._opened.wait()
        if self._failure is not None:
            raise self._failure
        loop = asyncio.get_running_loop()
        away_since, pause, said = 0.0, turns.RETRY_FROM, False
        while True:
            try:
                return await request()
            except StoreUnavailable as error:
                away_since = away_since or loop.time()
                away = loop.time() - away_since
                if self._closing and away > turns.GIVE_UP:
                    raise
                if away > SILENT and not said:
                    said = True
                    log.warning(
                        "everloop: calls with a key or an id of their own, cancellations and waits cannot be "
                        "asked for (%s)",
                        error,
                    )
            pause = min(turns.RETRY_TO, 2 * pause)
            await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311 - spreads processes


def _say(failing: str, error: Exception) -> None:
    log.error("everloop: %s: %s", failing, error)  # the store's error says it all
