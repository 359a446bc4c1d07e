"""A store that tells of ends before a turn does."""

from __future__ import annotations

from collections.abc import Callable

from everloop._core.calls import State
from everloop._core.records import Ended
from everloop.engine.session import Session, Waiter
from everloop.store.memory import MemoryStore


class Seer(MemoryStore):
    """Hands out the function that it was given to tell of ends."""

    def foretell(self, session: int, told: Callable[[list[Ended]], None]) -> None:
        self.sees = session, told


class Waiting(Waiter):
    def __init__(self, id: str) -> None:
        self.id = id
        self.next_waiter = None
        self.ends: list[Ended] = []

    def ended(self, end: Ended) -> None:
        self.ends.append(end)


async def test_who_waits_hears_of_an_end_once_whoever_tells_it_first() -> None:
    store = Seer()
    session = Session(store, "a")
    await session.open()
    number, told = store.sees
    assert number == session.number
    waiting = Waiting("x")
    session.watch(waiting, hold=True)
    end = Ended("x", State.SUCCEEDED, b"j1", None, 1)
    told([Ended("other", State.FAILED, None, b"j", 1), end])
    assert waiting.ends == [end]
    assert not session.waiting
    told([end])  # the turn
    assert waiting.ends == [end]
    await session.close()
