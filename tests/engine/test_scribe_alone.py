"""The scribe by itself: what it keeps of a run, what it leaves out, and a store that does not take it."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from everloop import StoreError, StoreUnavailable
from everloop._core.logs import LogChunk, LogRecord
from everloop._core.records import Lane, Leased
from everloop.engine import scribe as scribes
from everloop.engine.attempt import Attempt
from everloop.engine.scribe import LONGEST, Scribe, read_record


class Store:
    """Takes chunks, or raises while `error` is set."""

    def __init__(self) -> None:
        self.chunks: list[LogChunk] = []
        self.error: Exception | None = None
        self.asked = 0

    async def log(self, chunks: Sequence[LogChunk]) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        self.chunks += chunks

    @property
    def texts(self) -> list[str]:
        return [record.text for chunk in self.chunks for record in chunk.records]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(scribes, "GATHER", 0.0)
    monkeypatch.setattr(scribes, "AGAIN", 0.0)
    return Store()


def scribe_on(store: Store) -> Scribe:
    wanted: Any = store
    return Scribe(wanted)


def attempt(id: str = "call") -> Attempt:
    leased = Leased(id, 1, Lane("a", "default", "work"), b"j", b"", 0, 0, 0, 0, None, 0, 0)
    return Attempt(leased, lambda: None, lambda: None)


def record(text: str) -> LogRecord:
    return LogRecord(1, "INFO", "shop", text)


async def test_a_line_is_kept_once_it_is_ended_or_its_run_is_or_it_is_long(store: Store) -> None:
    scribe, run = scribe_on(store), attempt()

    scribe.printed(run, "one\ntwo")
    scribe.printed(run, " three\n")
    scribe.printed(run, "x" * (LONGEST + 1))
    scribe.printed(run, "the rest")
    scribe.ended(run)
    await scribe.close()

    assert [text[:9] for text in store.texts] == ["one", "two three", "x" * 9, "the rest"]
    assert "1 characters left out" in store.texts[2]


async def test_a_run_that_said_nothing_costs_nothing(store: Store) -> None:
    scribe = scribe_on(store)

    scribe.ended(attempt())
    await scribe.close()

    assert store.asked == 0


async def test_what_comes_when_it_is_closed_is_dropped(store: Store) -> None:
    scribe, run = scribe_on(store), attempt()
    scribe.told(run, record("before"))
    await scribe.close()

    scribe.told(run, record("after"))  # a body that could not be stopped goes on
    scribe.ended(run)
    await asyncio.sleep(0)

    assert store.texts == ["before"]


async def test_while_the_store_is_away_what_waits_is_bounded_and_what_was_lost_is_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scribes, "WAITING", 3 * (scribes.OVERHEAD + 4))
    scribe, run = scribe_on(store), attempt()
    store.error = StoreUnavailable("not now")

    for number in range(5):
        scribe.told(run, record(f"no {number}"))
    scribe.ended(run)
    while store.asked < 3:
        await asyncio.sleep(0)
    store.error = None
    await scribe.close()

    assert store.texts == ["no 0", "no 1", "no 2", "2 records were lost while the store was away"]


async def test_what_a_run_says_after_its_last_words_were_written_is_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scribes, "HEAD", 2 * (scribes.OVERHEAD + 4))
    scribe, run = scribe_on(store), attempt()
    for number in range(3):
        scribe.told(run, record(f"no {number}"))
    scribe.ended(run)

    scribe.told(run, record("late"))
    await scribe.close()

    assert store.texts == ["no 0", "no 1", "no 2"]
    assert run.page is not None and run.page.lost == 1


async def test_a_first_record_too_large_for_the_head_waits_for_the_end_of_its_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scribes, "HEAD", 1)
    scribe, run = scribe_on(store), attempt()

    scribe.told(run, record("large"))
    await asyncio.sleep(0)
    assert store.asked == 0
    scribe.ended(run)
    await scribe.close()

    assert store.texts == ["large"]


async def test_closing_while_the_store_is_away_says_what_is_lost(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    scribe = scribe_on(store)
    store.error = StoreUnavailable("not now")
    scribe.told(attempt("one"), record("a"))
    scribe.told(attempt("two"), record("b"))
    while store.asked == 0:
        await asyncio.sleep(0)

    async with asyncio.timeout(20):
        await scribe.close()

    assert "what 2 runs logged last is lost: the store is away" in caplog.text


async def test_closing_before_anything_was_sent_writes_it(store: Store) -> None:
    scribe, run = scribe_on(store), attempt()
    scribe.told(run, record("a"))

    await scribe.close()

    assert store.texts == ["a"]


async def test_what_a_store_refuses_is_said_and_not_sent_again(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    scribe, run = scribe_on(store), attempt()
    store.error = StoreError("never")
    scribe.told(run, record("a"))
    while store.asked == 0:
        await asyncio.sleep(0)
    store.error = None
    scribe.told(run, record("b"))
    await scribe.close()

    assert store.texts == ["b"]
    assert "what 1 runs logged cannot be written: never" in caplog.text


def test_an_exception_whose_text_cannot_be_made_is_told_by_its_name() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    class Group(ExceptionGroup[Exception]):
        """Formatting it reads its exceptions."""

        @property
        def exceptions(self) -> tuple[Exception, ...]:
            raise ValueError("no parts")

    try:
        raise Group("several", [Odd()])
    except Group:
        made = logging.LogRecord("shop", logging.ERROR, __file__, 1, "it %s", ("broke",), sys.exc_info())

    text = read_record(made).text

    assert text == "it broke\nGroup (which could not be formatted: ValueError('no parts'))"
