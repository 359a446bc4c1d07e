"""What the ratios were: each in the first record of `bench/results` that has it.

Not in the newest one: of what is compared with the last time alone, a tenth may be lost each time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from bench.gates import GATES, Past
from bench.report import RESULTS, load


class NoRecordError(Exception):
    """There is nothing to compare with; the message says where it is looked for."""


def first_ratios(folder: Path = RESULTS) -> Mapping[str, Past]:
    """Return the first ratio that was kept of each figure with a gate.

    Records of part of the measures, of small amounts, or of files that were not committed are passed over.

    Raises:
        NoRecordError: No record is left.
    """
    found: dict[str, Past] = {}
    records = [path for path in sorted(folder.glob("*.json")) if _is_whole(path)]
    if not records:
        raise NoRecordError(
            f"no record of a commit in {folder}, so nothing says what the ratios were; commit one "
            "(`python -m bench` writes it), or leave out --check"
        )
    for path in records:
        _, figures = load(path)
        for figure in figures:
            if figure.name in GATES and figure.ratio is not None and figure.name not in found:
                found[figure.name] = Past(figure.ratio, path.name, figure.what, figure.limit)
    return found


def _is_whole(path: Path) -> bool:
    record = json.loads(path.read_text(encoding="utf-8"))
    return not record["quick"] and not record["facts"]["commit"].endswith("+changes")
