"""Rows as a table that fits the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from everloop.cli.terminal import Style, cells, clean, cut, paint

Row = TypeVar("Row")
GAP = 2


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column of a table.

    Attributes:
        least: Columns below which cutting makes no sense; None is never cut.
        rank: When the terminal is narrow, the columns of the highest rank are left out first.
    """

    title: str
    text: Callable[[Row], str]
    right: bool = False
    least: int | None = None
    rank: int = 0
    style: Callable[[Row], tuple[Style, ...]] = lambda _row: ()


def table(rows: Sequence[Row], columns: Sequence[Column[Row]], width: int | None) -> list[str]:
    """Return the lines of a table at most `width` columns wide, its title line first."""
    texts = {column.title: [clean(column.text(row)) for row in rows] for column in columns}
    shown = [c for c in columns if any(texts[c.title])]
    widths = {c.title: max([cells(c.title), *map(cells, texts[c.title])]) for c in shown}
    if width is not None:
        shown = _fit(shown, widths, width)
    lines = [_line([(column.title, ("dim",)) for column in shown], shown, widths)]
    for n, row in enumerate(rows):
        lines.append(_line([(texts[c.title][n], c.style(row)) for c in shown], shown, widths))
    return lines


def _fit(columns: list[Column[Row]], widths: dict[str, int], width: int) -> list[Column[Row]]:
    """Cut the cuttable columns, the widest first; leave out whole ones when that is not enough."""
    shown = list(columns)
    while True:
        excess = sum(widths[c.title] + GAP for c in shown) - GAP - width
        if excess <= 0:
            return shown
        soft = [c for c in shown if c.least is not None and widths[c.title] > c.least]
        slack = sum(widths[c.title] - (c.least or 0) for c in soft)
        if slack >= excess:
            widest = max(soft, key=lambda c: widths[c.title] - (c.least or 0))
            widths[widest.title] -= 1
        elif len(shown) > 1 and max(c.rank for c in shown) > 0:
            shown.remove(max(reversed(shown), key=lambda c: c.rank))
        else:
            return shown


def _line(
    items: Sequence[tuple[str, tuple[Style, ...]]], columns: Sequence[Column[Row]], widths: dict[str, int]
) -> str:
    parts: list[str] = []
    for n, (column, (text, styles)) in enumerate(zip(columns, items, strict=True)):
        space = widths[column.title]
        shown = cut(text, space)
        padding = " " * (space - cells(shown))
        last = n == len(columns) - 1
        painted = paint(shown, *styles)
        parts.append(padding + painted if column.right else painted + ("" if last else padding))
    return (" " * GAP).join(parts).rstrip()
