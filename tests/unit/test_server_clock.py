"""The server's clock, told by this machine's: it follows, and does not tremble."""

from __future__ import annotations

import pytest

from everloop.store.sql import server_clock
from everloop.store.sql.server_clock import ServerClock


class Monotonic:
    """This machine's clock, moved by hand."""

    def __init__(self) -> None:
        self.at = 1_000

    def __call__(self) -> int:
        return self.at


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> Monotonic:
    clock = Monotonic()
    monkeypatch.setattr(server_clock, "_monotonic", clock)
    return clock


def answering(monotonic: Monotonic, instant: int, way_there: int, way_back: int) -> ServerClock:
    clock = ServerClock()
    ask(clock, monotonic, instant, way_there, way_back)
    return clock


def ask(clock: ServerClock, monotonic: Monotonic, instant: int, way_there: int, way_back: int) -> None:
    """Let the server answer that it was `instant` when the question arrived."""

    def answer() -> int:
        monotonic.at += way_there + way_back
        return instant

    clock.set(answer)


def test_it_tells_the_servers_time(monotonic: Monotonic) -> None:
    clock = answering(monotonic, 5_000_000, 10, 10)
    assert clock.now() == 5_000_010

    monotonic.at += 500
    assert clock.now() == 5_000_510


def test_a_slow_answer_that_contradicts_nothing_changes_nothing(monotonic: Monotonic) -> None:
    clock = answering(monotonic, 5_000_000, 10, 10)
    told = clock.now()
    ask(clock, monotonic, told + 5, 5, 9_000)

    assert clock.now() == told + 9_005


@pytest.mark.parametrize("jump", [-3_600_000_000, -1_000, 1_000, 3_600_000_000])
def test_a_server_whose_clock_is_set_is_followed(monotonic: Monotonic, jump: int) -> None:
    clock = answering(monotonic, 5_000_000_000, 10, 10)
    told = clock.now()
    ask(clock, monotonic, told + jump + 10, 10, 10)

    assert clock.now() == told + jump + 20
