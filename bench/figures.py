"""What a measure gives: samples, each with the limit that was measured beside it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One quantity, measured several times.

    Attributes:
        name: Its key in the results, in `gates.py` and on the command line.
        what: One line for the table.
        samples: One value per round.
        unit: Of a sample: "/s", "ms", "us", "%", "MB", "s", or "" for a ratio.
        limit: What it is compared with, in words.
        limits: What that was, beside each sample: this machine, at this moment, at its best.
    """

    name: str
    what: str
    samples: tuple[float, ...]
    unit: str
    limit: str = ""
    limits: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """The range of the samples as a share of their median."""
        return (max(self.samples) - min(self.samples)) / self.median if self.median else 0.0

    @property
    def ratio(self) -> float | None:
        """The median of sample : limit, taken round by round, so that a noisy minute disturbs both."""
        if not self.limits:
            return None
        return statistics.median(s / limit for s, limit in zip(self.samples, self.limits, strict=True))


@dataclass(frozen=True)
class Plan:
    """How much is measured, and where.

    Attributes:
        folder: An empty folder on the disk that is measured.
        rounds: Samples per figure.
        quick: Smaller amounts, for a first look: good enough for ratios, not for figures.
        say: Prints a line of progress.
    """

    folder: Path
    rounds: int
    quick: bool
    say: Callable[[str], None]

    def amount(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass
class Rounds:
    """Samples of several figures, gathered round by round."""

    samples: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def note(self, **values: float) -> None:
        for name, value in values.items():
            self.samples.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> tuple[float, ...]:
        return tuple(self.samples[name])

    def pairs(self, over: Callable[..., float], *names: str) -> tuple[float, ...]:
        """Combine several samples of each round into one."""
        return tuple(over(*values) for values in zip(*(self.samples[name] for name in names), strict=True))
