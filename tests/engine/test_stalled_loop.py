"""A loop that does not answer: the keeper tells where it is, and in the end ends the process."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import pytest

from everloop.engine.keeper import STALL_LIMIT, STALL_REPORT, Keeper
from everloop.store.memory import MemoryStore


class Exited(BaseException):
    """What stands for the end of the process."""


def keeper_of_a_loop_that_is_silent(seconds: float, stall_limit: float | None = STALL_LIMIT) -> Keeper:
    """Return one whose loop was asked so long ago; it watches when it is told to."""
    keeper = Keeper(MemoryStore(), 1, 10.0, lambda: None, stall_limit)
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


@pytest.mark.parametrize(("limit", "ends"), [(STALL_LIMIT, True), (None, False)])
async def test_a_loop_that_is_silent_for_too_long_ends_its_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, limit: float | None, *, ends: bool
) -> None:
    codes: list[int] = []

    def end(code: int) -> Any:
        codes.append(code)
        raise Exited

    monkeypatch.setattr(os, "_exit", end)
    keeper = keeper_of_a_loop_that_is_silent(STALL_LIMIT + 1, limit)
    if ends:
        with pytest.raises(Exited):
            keeper._watch_loop()
    else:
        keeper._watch_loop()

    assert codes == ([70] if ends else [])
    assert ("ending this process" in caplog.text) is ends
