"""For the tests of stores, and of what is built on Everloop."""

from __future__ import annotations

from everloop.testing.conformance import check_interleavings, check_store

__all__ = ["check_interleavings", "check_store"]
