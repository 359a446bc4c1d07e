"""What every store must do, as a suite that runs anywhere: `await check_store(factory)`."""

from __future__ import annotations

from everloop.testing.conformance.case import Case, Factory
from everloop.testing.conformance.cases import CASES

__all__ = ["CASES", "Case", "Factory"]
