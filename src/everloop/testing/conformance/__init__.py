"""What every store must do, as a suite that runs anywhere: `await check_store(factory)`.

* `cases` - one plain sentence each, a module per subject; `transitions` is the table, pair by pair
* `walk` - random verbs beside the `oracle` (whose calls are `lives`), with `invariants` after each
* `interleavings` - a verb that fails at any statement, with another one in between
* `at_once` - several workers on one state, in threads
"""

from __future__ import annotations

from everloop.testing.conformance.at_once import check_at_once
from everloop.testing.conformance.case import Case, Factory
from everloop.testing.conformance.cases import CASES
from everloop.testing.conformance.check import check_store
from everloop.testing.conformance.interleavings import Fault, FaultyFactory, check_interleavings
from everloop.testing.conformance.walk import walk

__all__ = [
    "CASES",
    "Case",
    "Factory",
    "Fault",
    "FaultyFactory",
    "check_at_once",
    "check_interleavings",
    "check_store",
    "walk",
]
