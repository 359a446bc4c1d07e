"""What is seen while the demo runs: a line for each page, and below them a live bar on a terminal."""

from __future__ import annotations

import asyncio
import sys
import textwrap
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from everloop.cli.terminal import Style, clean, cut, is_terminal, paint, width

FRAMES_A_SECOND = 12


class Screen:
    """Prints lines on standard output, under which a bar stays on standard error.

    Args:
        total: How many pages there will be.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.failed = 0
        self.note = ""
        self.started = time.perf_counter()
        self._live = is_terminal(sys.stderr)
        self._plain = "█" if _can_show("█░", sys.stderr.encoding) else "#"
        self._drawn = False

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    @asynccontextmanager
    async def live(self) -> AsyncGenerator[None]:
        """Keep the bar moving."""
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            _ = ticking.cancel()
            self._wipe()

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._wipe()
        print(text, flush=True)
        self._draw()

    def tell(self, text: str) -> None:
        """Print something for the human above the bar, on standard error."""
        self._wipe()
        tell(text)
        self._draw()

    def page(self, name: str, status: str, size: str, *, style: Style, why: str = "") -> None:
        """Print the line of a page that is done."""
        self.note = ""
        self.done += 1
        self.failed += style == "red"
        columns = width()
        space = 200 if columns is None else max(10, columns - 30)
        mark = paint(f"{status:>5}", style)
        told = f"{name}  {why}" if why else name
        self.line(f"{paint(f'{self.elapsed:6.2f} s', 'dim')}  {mark}  {size:>8}  {cut(clean(told), space)}")

    async def _tick(self) -> None:
        while True:
            self._draw()
            await asyncio.sleep(1 / FRAMES_A_SECOND)

    def _draw(self) -> None:
        if not self._live:
            return
        columns = width(sys.stderr) or 80
        told = f"{self.done}/{self.total} pages"
        if self.failed:
            told += f", {self.failed} failed"
        told += f"  {self.elapsed:.1f} s"
        if self.note and len(told) + len(self.note) < columns - 24:
            told += f"  {self.note}"
        space = max(6, min(40, columns - len(told) - 5))
        full = round(space * self.done / max(1, self.total))
        empty = "░" if self._plain == "█" else "."
        bar = paint(self._plain * full, "green", stream=sys.stderr)
        bar += paint(empty * (space - full), "dim", stream=sys.stderr)
        sys.stderr.write(f"\r\x1b[K  {bar} {cut(told, columns - space - 4)}")
        sys.stderr.flush()
        self._drawn = True

    def _wipe(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False


def tell(text: str) -> None:
    """Print something for the human on standard error, wrapped to the terminal."""
    columns = width(sys.stderr)
    if columns is not None:
        text = textwrap.fill(
            text, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    print(text, file=sys.stderr, flush=True)


def _can_show(text: str, encoding: str | None) -> bool:
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def size_text(count: int) -> str:
    """Return a number of bytes for humans."""
    if count < 1_000:
        return f"{count} B"
    number, unit = (count / 1e3, "kB") if count < 999_500 else (count / 1e6, "MB")
    return f"{number:.0f} {unit}" if number >= 9.95 else f"{number:.1f} {unit}"
