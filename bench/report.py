"""What is printed, and what is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.gates import GATES, SHARES, TARGETS, Bound, Verdict, judge
from bench.place import ROOT

RESULTS = ROOT / "bench" / "results"


def number(value: float, unit: str) -> str:
    """Write a value with as many digits as it deserves."""
    if unit == "/s" and value >= 100:
        return f"{value:,.0f}/s"
    digits = 0 if value >= 1_000 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{digits}f}{unit if unit in ('%', '/s') else f' {unit}' if unit else ''}"


def header(facts: Mapping[str, str]) -> str:
    """Say what was measured, and on what."""
    return "\n".join(f"{name:>12}  {value}" for name, value in facts.items())


def row(figure: Figure) -> str:
    """One line for one figure."""
    left = f"{figure.name:<20} {number(figure.median, figure.unit):>11} ±{figure.spread / 2 * 100:3.0f} %"
    ratio = figure.ratio
    middle = " " * 9 if ratio is None else f"{_ratio(ratio):>9}"
    marks = [_mark(v) for v in judge([figure])]
    return f"{left} {middle}  {figure.what}{_against(figure)}{'  ' + ', '.join(marks) if marks else ''}"


def _against(figure: Figure) -> str:
    if not figure.limits:
        return ""
    limits = sorted(figure.limits)
    return f" [{figure.limit}: {number(limits[len(limits) // 2], figure.unit)}]"


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.1f}x"


def _mark(verdict: Verdict) -> str:
    bound = verdict.bound
    if verdict.gates:
        return f"gate {_bound(bound, '')}: {'ok' if verdict.holds else 'BROKEN'}"
    return f"aim {_bound(bound, verdict.figure.unit)}: {'met' if verdict.holds else 'NOT MET'}"


def _bound(bound: Bound, unit: str) -> str:
    return f"{'>=' if bound.kind == 'least' else '<='} {number(bound.value, unit)}"


def as_json(facts: Mapping[str, str], figures: Sequence[Figure], *, quick: bool) -> dict[str, Any]:
    """Return the record of a run."""
    return {
        "facts": dict(facts),
        "quick": quick,
        "figures": {f.name: _figure(f) for f in figures},
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "what": figure.what,
        "unit": figure.unit,
        "median": _round(figure.median),
        "spread": _round(figure.spread),
        "samples": [_round(s) for s in figure.samples],
        "limit": figure.limit,
        "limits": [_round(s) for s in figure.limits],
        "ratio": None if figure.ratio is None else _round(figure.ratio),
        "aim": _kept(TARGETS.get(figure.name)),
        "gate": _kept(GATES.get(figure.name) or SHARES.get(figure.name)),
    }


def _kept(bound: Bound | None) -> str | None:
    return None if bound is None else f"{bound.kind} {bound.value:g}"


def _round(value: float) -> float:
    return float(f"{value:.5g}")


def save(record: Mapping[str, Any]) -> Path:
    """Write the record to `bench/results/DATE-COMMIT.json`."""
    date, commit = record["facts"]["date"][:10], record["facts"]["commit"].replace("+changes", "-changed")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{date}-{commit}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def load(path: Path) -> tuple[dict[str, str], list[Figure]]:
    """Read a record back."""
    record = json.loads(path.read_text(encoding="utf-8"))
    figures = [
        Figure(name, f["what"], tuple(f["samples"]), f["unit"], f["limit"], tuple(f["limits"]))
        for name, f in record["figures"].items()
    ]
    return record["facts"], figures
