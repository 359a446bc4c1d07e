"""The scribe: what bodies log, gathered and written apart from the turns.

A call that logs nothing costs nothing. Records gather for a moment and go together, without waiting for the
disk; so a process that is killed loses at most what that moment held. They may come from any thread.

Of one run the first records are kept, up to a number of bytes, and the last ones, which are written when it
ends, behind a line that says how much is left out between them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from contextvars import Context

from everloop._core.errors import StoreError, StoreUnavailable
from everloop._core.logs import LogChunk, LogRecord
from everloop.engine.attempt import Attempt
from everloop.store.protocol import Store

log = logging.getLogger("everloop")

#: Bytes of one run that are kept: the first ones, and the last ones. Characters of one record.
HEAD, TAIL, LONGEST = 48 << 10, 16 << 10, 8 << 10
#: What a record counts beside its text.
OVERHEAD = 40
#: Seconds in which records gather, and seconds before they go again when the store is away.
GATHER, AGAIN = 0.2, 1.0
#: Bytes that wait for the store at most; what comes then is lost, and counted.
WAITING = 16 << 20
#: Bytes that go in one transaction, more or less.
TOGETHER = 1 << 20


class Page:
    """What one run has logged and is not written yet."""

    __slots__ = (
        "attempt",
        "cut",
        "cut_size",
        "ended",
        "lost",
        "n",
        "part",
        "pending",
        "size",
        "tail",
        "tail_size",
    )

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.pending: list[LogRecord] = []
        self.n = 0  # records that were written
        self.size = 0
        self.part = ""  # what was printed since the last line's end
        self.tail: deque[LogRecord] = deque()
        self.tail_size = 0
        self.cut = self.cut_size = 0  # records that are left out in the middle, and their bytes
        self.lost = 0  # records for which there was no room while the store was away
        self.ended = False


class Scribe:
    """Writes what the bodies of one session's worker log.

    Args:
        store: An open store.
        level: The lowest level of `logging` that is kept.
    """

    def __init__(self, store: Store, level: int = logging.INFO) -> None:
        self.level = level
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._pages: dict[Page, None] = {}  # those with something to write
        self._waiting = 0
        self._wake = asyncio.Event()
        self._sending: list[LogChunk] = []  # Invariant: goes again as it is until the store has it
        self._closing = self._closed = False
        self._task: asyncio.Task[None] | None = None

    # -- in any thread --------------------------------------------------------------------------------------

    def logged(self, attempt: Attempt, record: logging.LogRecord) -> None:
        """Take a record of `logging`; never raises."""
        if record.levelno >= self.level:
            at = round(record.created * 1_000_000)
            self._take(attempt, [LogRecord(at, record.levelname, record.name, _text_of(record))])

    def printed(self, attempt: Attempt, text: str) -> None:
        """Take what was printed; a line is kept once it is ended."""
        with self._lock:
            page = self._page(attempt)
            *lines, page.part = (page.part + text).split("\n")
        if len(page.part) > LONGEST:
            lines, page.part = [*lines, page.part], ""
        if lines:
            at = time.time_ns() // 1_000
            self._take(attempt, [LogRecord(at, "print", "", line) for line in lines])

    def ended(self, attempt: Attempt) -> None:
        """Note that the body is over: what is left of its page can be written."""
        page = attempt.page
        if page is None:
            return
        if page.part:
            part, page.part = page.part, ""
            self._take(attempt, [LogRecord(time.time_ns() // 1_000, "print", "", part)])
        with self._lock:
            page.ended = True
            self._close_page(page)
        self._ring()

    def _page(self, attempt: Attempt) -> Page:
        if attempt.page is None:
            attempt.page = Page(attempt)
        return attempt.page

    def _take(self, attempt: Attempt, records: Iterable[LogRecord]) -> None:
        if self._closed:
            return  # a body that could not be stopped goes on
        with self._lock:
            page = self._page(attempt)
            for record in records:
                self._keep(page, _bounded(record))
            first = not self._pages and bool(page.pending)
            if page.pending:
                self._pages[page] = None
        if first:
            self._ring()

    def _keep(self, page: Page, record: LogRecord) -> None:
        size = _size(record)
        if self._waiting + size > WAITING:
            page.lost += 1
        elif page.size + size <= HEAD and not page.tail:
            page.size += size
            self._waiting += size
            page.pending.append(record)
        elif page.ended:
            page.lost += 1  # its last words have been written
        else:
            page.tail.append(record)
            page.tail_size += size
            while page.tail_size > TAIL:
                old = page.tail.popleft()
                page.tail_size -= _size(old)
                page.cut, page.cut_size = page.cut + 1, page.cut_size + len(old.text)

    def _close_page(self, page: Page) -> None:
        """Move the last words of a run behind the first ones; the lock is held."""
        said: list[str] = []
        if page.cut:
            said.append(f"{page.cut:,} records ({page.cut_size:,} characters) are left out here")
        if page.lost:
            said.append(f"{page.lost:,} records were lost while the store was away")
        at = page.tail[0].at if page.tail else time.time_ns() // 1_000
        last = [*(LogRecord(at, "NOTE", "everloop", text) for text in said), *page.tail]
        page.pending += last
        self._waiting += sum(map(_size, last))
        page.tail.clear()
        page.cut = page.lost = page.tail_size = 0
        if page.pending:
            self._pages[page] = None

    def _ring(self) -> None:
        if not self._closed:
            with suppress(RuntimeError):  # the loop is closed: a thread has outlived its worker
                # Not in the context of the body that has logged: what is logged here is not its own.
                self._loop.call_soon_threadsafe(self._start, context=Context())

    # -- on the loop ----------------------------------------------------------------------------------------

    def _start(self) -> None:
        if not self._closed and (self._task is None or self._task.done()):
            self._task = self._loop.create_task(self._run(), name="everloop-scribe")

    async def _run(self) -> None:
        while self._pages or self._sending:
            await self._pause(GATHER)
            if not await self._flush():
                if self._closing:
                    return
                await self._pause(AGAIN)

    async def _pause(self, seconds: float) -> None:
        if self._closing:
            return
        timer = self._loop.call_later(seconds, self._wake.set)
        await self._wake.wait()
        timer.cancel()
        self._wake.clear()

    async def _flush(self) -> bool:
        """Write what has gathered; False when the store did not take it, and it goes again as it is."""
        if not self._sending:
            self._sending = self._gathered()
        try:
            await self._store.log(self._sending)
        except StoreUnavailable as error:
            log.debug("everloop: what %d runs logged cannot be written now: %s", len(self._sending), error)
            return False
        except StoreError as error:
            log.warning("everloop: what %d runs logged cannot be written: %s", len(self._sending), error)
        with self._lock:
            self._waiting -= sum(_size(record) for chunk in self._sending for record in chunk.records)
        self._sending = []
        return True

    def _gathered(self) -> list[LogChunk]:
        """Take what goes together; what is over goes next."""
        chunks: list[LogChunk] = []
        size = 0
        with self._lock:
            while self._pages and size < TOGETHER:
                page = next(iter(self._pages))
                del self._pages[page]
                leased, records = page.attempt.leased, tuple(page.pending)
                page.pending = []
                chunks.append(LogChunk(leased.id, leased.fence, page.n, leased.attempt + 1, records))
                page.n += len(records)
                size += sum(map(_size, records))
        return chunks

    async def close(self) -> None:
        """Write what is there; once, when the store is away."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task])
        while self._pages or self._sending:
            if not await self._flush():
                left = len(self._pages) + len(self._sending)
                log.warning("everloop: what %d runs logged last is lost: the store is away", left)
                break
        self._closed = True


def _size(record: LogRecord) -> int:
    return len(record.text) + OVERHEAD


def _text_of(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception as error:  # noqa: BLE001 - logging says so, too, and goes on
        text = f"{record.msg!r} (which could not be formatted: {error!r})"
    if record.exc_info and record.exc_info[0] is not None:
        try:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        except Exception as error:  # noqa: BLE001 - the exception's own `__str__`
            text += f"\n{record.exc_info[0].__name__} (which could not be formatted: {error!r})"
    return text


def _bounded(record: LogRecord) -> LogRecord:
    """Return a record whose text every store takes."""
    text = record.text
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) > LONGEST:
        left_out = len(text) - LONGEST
        text = f"{text[: LONGEST // 2]}\n… {left_out:,} characters left out …\n{text[-LONGEST // 2 :]}"
    return LogRecord(record.at, record.level, record.logger, text)
