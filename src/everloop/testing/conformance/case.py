"""Cases: what a store must do, one plain sentence each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from everloop._core.clock import Clock, ManualClock
from everloop.store.protocol import Store
from everloop.testing.conformance.scene import Scene

#: Makes a fresh, unopened store whose instants come from the given clock.
Factory = Callable[[Clock], Store]


Try = Callable[[Scene], Awaitable[None]]


class Case(NamedTuple):
    """One sentence about stores, and the coroutine function that tries whether it is true.

    Attributes:
        group: The module that it stands in: "adding", "leasing", ...
        name: The sentence.
    """

    group: str
    name: str
    run: Try

    async def check(self, factory: Factory) -> None:
        """Try the case on a fresh store.

        Raises:
            AssertionError: The store does not do what the sentence says.
        """
        clock = ManualClock()
        store = factory(clock)
        await store.open()
        try:
            await self.run(Scene(store, clock))
        except BaseException as error:
            error.add_note(f"{type(store).__name__}: {self.group}: {self.name}")
            raise
        finally:
            await store.close()


#: Every case, in the order in which they were defined.
CASES: list[Case] = []


def case(function: Try) -> Try:
    """Add a coroutine function to the suite; its name is the sentence."""
    name = function.__name__.replace("_", " ")
    CASES.append(Case(function.__module__.rpartition(".")[2], name, function))
    return function
