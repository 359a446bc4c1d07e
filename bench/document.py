"""Fill `docs/performance.md` from a record, so that its figures do not drift from what was measured.

The text between `<!-- bench:NAME -->` and `<!-- /bench -->` is replaced; NAME is a table below.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure
from bench.gates import GATES, TARGETS
from bench.place import ROOT
from bench.report import RESULTS, load, number

PAGE = ROOT / "docs" / "performance.md"
_PLACE = re.compile(r"(<!-- bench:(\w+) -->\n).*?(<!-- /bench -->)", re.DOTALL)


@dataclass(frozen=True)
class Record:
    """A record that has been read."""

    name: str
    facts: Mapping[str, str]
    figures: Mapping[str, Figure]


def write(record: Path | None = None, page: Path = PAGE) -> None:
    """Rewrite the page's tables from `record`, or from the newest one.

    Raises:
        SystemExit: There is no record.
    """
    record = record or newest()
    facts, figures = load(record)
    shown = Record(record.name, facts, {figure.name: figure for figure in figures})
    page.write_text(filled(page.read_text(encoding="utf-8"), shown), encoding="utf-8")
    print(f"{page.relative_to(ROOT)} now shows {record.name}")


def newest() -> Path:
    """Return the record that was written last.

    Raises:
        SystemExit: There is none.
    """
    records = sorted(RESULTS.glob("*.json"), key=lambda path: (path.name[:10], path.stat().st_mtime))
    if not records:
        raise SystemExit(f"bench: no record in {RESULTS}; `python -m bench` writes one")
    return records[-1]


def filled(text: str, record: Record) -> str:
    """Return the text with every marked place filled."""
    return _PLACE.sub(lambda found: f"{found[1]}{TABLES[found[2]](record)}\n{found[3]}", text)


def _facts(record: Record) -> str:
    lines = [f"| {name} | {re.sub(r' [(]/.*[)]$', '', value)} |" for name, value in record.facts.items()]
    return "\n".join(["| | |", "|---|---|", *lines, f"| record | `bench/results/{record.name}` |"])


def _aims(record: Record) -> str:
    rows = ["| measure | median | ± | aim | |", "|---|--:|--:|--:|---|"]
    for name, bound in TARGETS.items():
        if name in record.figures:
            f = record.figures[name]
            aim = f"{'at least' if bound.kind == 'least' else 'at most'} {number(bound.value, f.unit)}"
            verdict = "met" if bound.holds(f.median) else "**not met**"
            rows.append(f"| {f.what} | {number(f.median, f.unit)} | {_spread(f)} | {aim} | {verdict} |")
    return "\n".join(rows)


def _ratios(record: Record) -> str:
    rows = ["| measure | median | limit beside it | ratio | gate |", "|---|--:|---|--:|--:|"]
    for f in record.figures.values():
        if f.ratio is not None:
            gate = GATES.get(f.name)
            asked = "" if gate is None else f"{'≥' if gate.kind == 'least' else '≤'} {gate.value:.3g}"
            limit = f"{number(sorted(f.limits)[len(f.limits) // 2], f.unit)}, {f.limit}"
            rows.append(f"| {f.what} | {number(f.median, f.unit)} | {limit} | {f.ratio:.3g} | {asked} |")
    return "\n".join(rows)


def _rest(record: Record) -> str:
    return _plain(f for f in record.figures.values() if f.ratio is None and not f.name.startswith("limit."))


def _limits(record: Record) -> str:
    return _plain(f for f in record.figures.values() if f.name.startswith("limit."))


def _plain(figures: Iterable[Figure]) -> str:
    rows = [f"| {f.what} | {number(f.median, f.unit)} | {_spread(f)} |" for f in figures]
    return "\n".join(["| measure | median | ± |", "|---|--:|--:|", *rows])


def _spread(figure: Figure) -> str:
    return f"{figure.spread / 2 * 100:.0f} %"


TABLES: Mapping[str, Callable[[Record], str]] = {
    "facts": _facts,
    "aims": _aims,
    "ratios": _ratios,
    "rest": _rest,
    "limits": _limits,
}
