"""Check a store: the whole suite in one call."""

from __future__ import annotations

from collections.abc import Iterable

from everloop.testing.conformance.at_once import check_at_once
from everloop.testing.conformance.case import Factory
from everloop.testing.conformance.cases import CASES
from everloop.testing.conformance.walk import walk


async def check_store(factory: Factory, *, seeds: Iterable[int] = range(20), steps: int = 150) -> None:
    """Check that a store keeps the whole contract of `everloop.store.protocol.Store`.

    Every case is tried on a fresh store; then the store is walked at random, side by side with an
    oracle that shares no code with any store; then several workers use it at once, from threads. It
    takes about half a minute for a store on a local disk.

    Args:
        factory: Makes a fresh, unopened store that reads the time from the given clock.
        seeds: One random walk for each.
        steps: How long each walk is.

    Raises:
        AssertionError: The store does something else; the notes say in which case, or how to walk the
            same way again.

    Example:
        >>> import asyncio
        >>> from everloop.store.memory import MemoryStore
        >>> asyncio.run(check_store(MemoryStore, seeds=range(2), steps=50))
    """
    for case in CASES:
        await case.check(factory)
    for seed in seeds:
        await walk(factory, seed, steps)
        await check_at_once(factory, seed=seed)
