"""What two processes held while calls were made, and whether it grew.

Compared are the second and the fourth quarter of the points: by the second everything is warm.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import linear_regression, median
from typing import Any

#: Bytes of memory that may be added with each call: 1 KiB in 1,000.
PER_CALL = 1024 / 1000
#: A line through fewer calls than these says nothing about so little: what is resident comes in pages, and
#: moves by some hundred of them.
ENOUGH = 100_000
#: Resident beside SQLite's caches and blocks of Python, that a short run may add whatever its length.
SHORT_BYTES, SHORT_BLOCKS = 4 << 20, 600
_MEMORY = ("rss", "sqlite", "blocks")
#: Of Everloop's own objects there may be so many more at one moment than at another: asyncio keeps a timer
#: that was cancelled, and the context in which it was made, until its time has come.
MOMENT = 20
WHO = ("worker", "client")


@dataclass(frozen=True)
class Point:
    """What both held after so many calls, and how many of these were in the store."""

    calls: int
    seconds: float
    stored: int
    held: dict[str, dict[str, int]]
    registries: dict[str, dict[str, int]]

    @classmethod
    def read(cls, line: str) -> Point:
        told = json.loads(line)
        return cls(
            told["calls"],
            told["seconds"],
            told["stored"],
            {who: told[who]["held"] for who in WHO},
            {who: told[who]["registries"] for who in WHO},
        )


def faults(points: Sequence[Point]) -> list[str]:
    """Return what has grown, in words."""
    return [fault for who in WHO for fault in (*_counts(who, points), *_memory(who, points))]


def _quarters(points: Sequence[Point]) -> tuple[Sequence[Point], Sequence[Point]]:
    quarter = len(points) // 4
    return points[quarter : 2 * quarter], points[-quarter:]


def _counts(who: str, points: Sequence[Point]) -> list[str]:
    second, fourth = _quarters(points)
    grown: list[str] = []
    names = {name for point in points for name in (*point.held[who], *point.registries[who])}
    for name in sorted(names - {*_MEMORY}):
        before = [_count(point, who, name) for point in second]
        after = [_count(point, who, name) for point in fourth]
        # What stands higher at times has not grown: it would do so for good.
        more = 0 if name in points[0].held[who] else MOMENT
        if min(after) > max(before) + more:
            grown.append(f"{who}: {name} was {max(before)} at most, and is {min(after)} at least")
    return grown


def _count(point: Point, who: str, name: str) -> int:
    return point.held[who].get(name, 0) or point.registries[who].get(name, 0)


def _memory(who: str, points: Sequence[Point]) -> list[str]:
    calls = points[-1].calls - points[len(points) // 2 - 1].calls
    if calls >= ENOUGH:
        growth = {"rss": slope(points, who, "rss")}
        return [
            f"{who}: {name} grows by {bytes_:.2f} bytes a call, {PER_CALL:.2f} are allowed"
            for name, bytes_ in growth.items()
            if bytes_ > PER_CALL
        ]
    second, fourth = _quarters(points)

    def grew(what: str, less: str | None = None) -> float:
        values = [
            median(p.held[who][what] - (p.held[who][less] if less else 0) for p in part)
            for part in (second, fourth)
        ]
        return values[1] - values[0]

    grown: list[str] = []
    if (blocks := grew("blocks")) > SHORT_BLOCKS:
        grown.append(f"{who}: blocks of memory are {blocks:,.0f} more, {SHORT_BLOCKS} are allowed")
    if (bytes_ := grew("rss", "sqlite")) > SHORT_BYTES:
        grown.append(f"{who}: {bytes_:,.0f} bytes more are resident, {SHORT_BYTES:,} are allowed")
    return grown


def slope(points: Sequence[Point], who: str, what: str) -> float:
    """Return how much a figure grows with each call over the last half, by the best line through it."""
    half = points[len(points) // 2 - 1 :]
    line = linear_regression([point.calls for point in half], [point.held[who][what] for point in half])
    return line.slope


def found(points: Sequence[Point]) -> dict[str, Any]:
    """Return what is worth keeping of a run: the growth over its last half, and some of the points."""
    every = max(1, len(points) // 20)
    return {
        "calls": points[-1].calls,
        "seconds": points[-1].seconds,
        "growth over the last half": {
            who: {
                "KiB resident per 1,000 calls": round(slope(points, who, "rss") * 1000 / 1024, 3),
                "blocks per 1,000 calls": round(slope(points, who, "blocks") * 1000, 2),
            }
            for who in WHO
        },
        "faults": faults(points),
        "points": [
            {
                "calls": point.calls,
                "seconds": point.seconds,
                "stored": point.stored,
                **{who: point.held[who] for who in WHO},
            }
            for point in [*points[every - 1 :: every]]
        ],
    }
