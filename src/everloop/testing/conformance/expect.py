"""Comparisons that still say something when Python runs with `-O` and without pytest."""

from __future__ import annotations

from typing import Any


def same(actual: Any, wanted: Any, about: str = "") -> None:
    """Fail unless both are equal."""
    if actual != wanted:
        raise AssertionError(f"{about or 'the answer'}: expected {wanted!r}, got {actual!r}")


def holds(condition: object, about: str) -> None:
    """Fail with `about`, the sentence that should have been true, unless it is."""
    if not condition:
        raise AssertionError(f"not true: {about}")
