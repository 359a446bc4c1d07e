"""A line on standard error that is drawn anew while something goes on: on a terminal only."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from everloop.cli.terminal import cut, is_terminal, paint, width

FRAMES_A_SECOND = 12


class LiveLine:
    """Stays below whatever is printed meanwhile, if that is printed through it.

    Args:
        text: Gives the line for so many columns.
    """

    def __init__(self, text: Callable[[int], str]) -> None:
        self._text = text
        self._drawn = False
        self.shown = is_terminal(sys.stderr)

    @asynccontextmanager
    async def drawn(self) -> AsyncGenerator[None]:
        """Keep it moving."""
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            _ = ticking.cancel()
            self._wipe()

    def above(self, text: str, *, data: bool = False) -> None:
        """Print a line above it: data on standard output, the rest on standard error."""
        self._wipe()
        print(text, file=sys.stdout if data else sys.stderr, flush=True)
        self._draw()

    async def _tick(self) -> None:
        while self.shown:
            self._draw()
            await asyncio.sleep(1 / FRAMES_A_SECOND)

    def _draw(self) -> None:
        if self.shown:
            sys.stderr.write(f"\r\x1b[K{self._text((width(sys.stderr) or 80) - 1)}")
            sys.stderr.flush()
            self._drawn = True

    def _wipe(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False


def bar(done: float, total: float, told: str, columns: int) -> str:
    """Return a bar and what is told beside it, for standard error."""
    space = max(6, min(40, columns - len(told) - 4))
    share = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
    full = round(space * share)
    filled, empty = ("█", "░") if _can_show("█░", sys.stderr.encoding) else ("#", ".")
    painted = paint(filled * full, "green", stream=sys.stderr) + paint(
        empty * (space - full), "dim", stream=sys.stderr
    )
    return f"  {painted} {cut(told, columns - space - 3)}"


def _can_show(text: str, encoding: str | None) -> bool:
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
