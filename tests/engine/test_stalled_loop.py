"""A loop that does not answer: the keeper tells where it is, and in the end ends the process."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from everloop._core.clock import SECOND
from everloop._core.looks import Gauges
from everloop._core.records import SessionInfo
from everloop.engine.keeper import STALL_LIMIT, STALL_REPORT, Keeper
from everloop.store.memory import MemoryStore
from everloop.store.protocol import Store


class Exited(BaseException):
    """What stands for the end of the process."""


def gauges(lag: float) -> Gauges:
    return Gauges(memory=1, lag=round(lag * SECOND), running=1, slots=2)


def keeper_of_a_loop_that_is_silent(
    seconds: float,
    stall_limit: float | None = STALL_LIMIT,
    told: Callable[[float], Gauges | None] = gauges,
    store: Store | None = None,
) -> Keeper:
    """Return one whose loop was asked so long ago; it watches when it is told to."""
    keeper = Keeper(store or MemoryStore(), 1, time.monotonic(), 10.0, lambda: None, stall_limit, told)
    keeper._watch_loop()
    assert keeper._asked_at is not None
    keeper._asked_at -= seconds
    return keeper


async def test_a_silent_loop_is_reported_once_with_the_line_where_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keeper = keeper_of_a_loop_that_is_silent(STALL_REPORT + 1)
    keeper._watch_loop()  # here the loop is
    keeper._watch_loop()

    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said.startswith("everloop: the event loop has not answered for 6 s; it is here:\n")
    assert "keeper._watch_loop()  # here the loop is" in said
    await asyncio.sleep(0)  # it answers
    assert keeper._asked_at is None


@pytest.mark.parametrize(
    ("limit", "told", "ends"),
    [(STALL_LIMIT, gauges, True), (None, gauges, False), (STALL_LIMIT, lambda _: None, False)],
    ids=["worker", "without a limit", "client"],
)
async def test_a_loop_that_is_silent_for_too_long_ends_its_process(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limit: float | None,
    told: Callable[[float], Gauges | None],
    *,
    ends: bool,
) -> None:
    codes: list[int] = []

    def end(code: int) -> Any:
        codes.append(code)
        raise Exited

    monkeypatch.setattr(os, "_exit", end)
    keeper = keeper_of_a_loop_that_is_silent(STALL_LIMIT + 1, limit, told)
    if ends:
        with pytest.raises(Exited):
            keeper._watch_loop()
    else:
        keeper._watch_loop()

    assert codes == ([70] if ends else [])
    assert ("ending this process" in caplog.text) is ends


async def lag_that_is_stored(store: MemoryStore, keeper: Keeper) -> float:
    assert await keeper._renew()
    (look,) = await store.sessions()
    assert look.gauges is not None
    return look.gauges.lag / SECOND


async def test_how_long_the_loop_took_to_answer_is_stored_with_the_renewal() -> None:
    store = MemoryStore()
    assert await store.open_session(SessionInfo(app="a", kind="worker", host="here", pid=1), SECOND) == 1
    keeper = keeper_of_a_loop_that_is_silent(3.0, store=store)

    assert 3.0 <= await lag_that_is_stored(store, keeper) < 60, "it still owes the answer"
    await asyncio.sleep(0)
    assert await lag_that_is_stored(store, keeper) >= 3.0, "it has answered since"
    assert await lag_that_is_stored(store, keeper) == 0.0, "and was not asked again"
