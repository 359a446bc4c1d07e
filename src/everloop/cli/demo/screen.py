"""What is seen while the demo runs: a line for each page, and below them a live bar on a terminal."""

from __future__ import annotations

import sys
import textwrap
import time

from everloop.cli.live import LiveLine, bar
from everloop.cli.terminal import Style, clean, cut, paint, width


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
        self._line = LiveLine(self._bar)
        self.live = self._line.drawn

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    def tell(self, text: str) -> None:
        """Print something for the human above the bar."""
        self._line.above(wrapped(text))

    def page(self, name: str, status: str, size: str, *, style: Style, why: str = "") -> None:
        """Print the line of a page that is done."""
        self.note = ""
        self.done += 1
        self.failed += style == "red"
        columns = width()
        space = 200 if columns is None else max(10, columns - 30)
        told = cut(clean(f"{name}  {why}" if why else name), space)
        at = paint(f"{self.elapsed:6.2f} s", "dim")
        self._line.above(f"{at}  {paint(f'{status:>5}', style)}  {size:>8}  {told}", data=True)

    def _bar(self, columns: int) -> str:
        told = f"{self.done}/{self.total} pages"
        if self.failed:
            told += f", {self.failed} failed"
        told += f"  {self.elapsed:.1f} s"
        if self.note and len(told) + len(self.note) < columns - 24:
            told += f"  {self.note}"
        return bar(self.done, self.total, told, columns)


def tell(text: str) -> None:
    """Print something for the human on standard error, wrapped to the terminal."""
    print(wrapped(text), file=sys.stderr, flush=True)


def wrapped(text: str) -> str:
    """Return the text in lines that fit the terminal."""
    columns = width(sys.stderr)
    if columns is None:
        return text
    return textwrap.fill(
        text, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def size_text(count: int) -> str:
    """Return a number of bytes for humans."""
    if count < 1_000:
        return f"{count} B"
    number, unit = (count / 1e3, "kB") if count < 999_500 else (count / 1e6, "MB")
    return f"{number:.0f} {unit}" if number >= 9.95 else f"{number:.1f} {unit}"
