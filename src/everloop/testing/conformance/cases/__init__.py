"""The cases, a module per subject; importing it fills `CASES`."""

from __future__ import annotations

from everloop.testing.conformance.case import CASES
from everloop.testing.conformance.cases import (
    adding,
    callbacks,
    cancelling,
    children,
    dying,
    history,
    keeping,
    keys,
    leasing,
    logging,
    reading,
    sessions,
    settling,
    telling,
    transitions,
)

__all__ = [
    "CASES",
    "adding",
    "callbacks",
    "cancelling",
    "children",
    "dying",
    "history",
    "keeping",
    "keys",
    "leasing",
    "logging",
    "reading",
    "sessions",
    "settling",
    "telling",
    "transitions",
]
