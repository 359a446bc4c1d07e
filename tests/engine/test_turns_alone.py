"""The turn loop by itself, and what goes apart from it, with a store that answers as a test says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from everloop import StoreUnavailable
from everloop._core.calls import Event, State
from everloop._core.codec import load_error
from everloop._core.records import (
    Added,
    Cancel,
    Cancelled,
    Lane,
    Leased,
    NewCall,
    Outcome,
    Parent,
    Progress,
    Turn,
    TurnAnswer,
)
from everloop.engine import turns
from everloop.engine.apart import Apart
from everloop.engine.batcher import AGAIN, Again, Batcher
from everloop.engine.turns import TurnLoop
from tests.helpers.waiting import until

LANE = Lane("a", "default", "work")
Answer = Callable[[Turn], TurnAnswer]


def call(id: str) -> NewCall:
    return NewCall(id=id, lane=LANE, args=b"j")


def outcome(id: str = "call") -> Outcome:
    return Outcome(id, 1, Event.SUCCEED, b"j7")


def agree(turn: Turn) -> TurnAnswer:
    """Take everything."""
    return TurnAnswer(
        settled=[True] * len(turn.outcomes), added=[Added(call.id, "added") for call in turn.adds]
    )


def hold(turn: Turn) -> TurnAnswer:
    """Answer as a store does in which another transaction holds the rows."""
    return TurnAnswer(settled=[None] * len(turn.outcomes))


def fail(error: Exception) -> Answer:
    def raise_it(turn: Turn) -> TurnAnswer:
        raise error

    return raise_it


class Store:
    """Answers turn by turn as it is told, then agrees; keeps what it was asked.

    Attributes:
        asked: The turns with something in them.
    """

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.always: Answer = agree
        self.asked: list[Turn] = []
        self.looks = 0

    def now(self) -> int:
        return 0

    async def turn(self, session: int, turn: Turn) -> TurnAnswer:
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if self.answers else self.always
        if turn.outcomes or turn.adds or turn.progress:
            self.asked.append(msgspec.structs.replace(turn, progress=[*turn.progress]))
        else:
            self.looks += 1
        return answer(turn)


class Sink:
    """Keeps what became of one call."""

    def __init__(self) -> None:
        self.told: Added | Exception | None = None

    def added(self, answer: Added) -> None:
        self.told = answer

    def refused(self, error: Exception) -> None:
        self.told = error


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("RETRY_FROM", 0.0001), ("RETRY_TO", 0.001), ("HELD", 0.001)):
        monkeypatch.setattr(turns, name, seconds)


def loop_on(store: Any) -> TurnLoop:
    return TurnLoop(store, lambda: 1, lambda ends: None)


@asynccontextmanager
async def running(loop: TurnLoop) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.get_running_loop().create_task(loop.run())
    yield task
    loop.close()
    await task


# -- outcomes whose rows another transaction holds -----------------------------------------------------------


async def test_an_outcome_that_is_held_goes_again_and_is_waited_for() -> None:
    store = Store(hold, hold)
    loop = loop_on(store)
    loop.settle(outcome())

    async with running(loop), asyncio.timeout(20):
        await loop.settled()

    assert [turn.outcomes for turn in store.asked] == [[outcome()]] * 3


async def test_an_ending_process_gives_up_an_outcome_that_stays_held(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(turns, "GIVE_UP", 0.02)
    store = Store()
    store.always = hold
    loop = loop_on(store)
    loop.settle(outcome())

    async with asyncio.timeout(20), running(loop):
        await until(lambda: bool(store.asked))

    assert (
        "ended with 1 outcomes not stored (those calls run again): transactions that are still open hold "
        "their rows" in caplog.text
    )


# -- turns that fail -----------------------------------------------------------------------------------------


async def test_a_turn_that_fails_goes_again_without_its_reports_of_progress(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store(fail(ValueError("no such progress")))
    loop = loop_on(store)
    loop.settle(outcome())
    loop.progress(Progress("other", 1, 1.0, 2.0, ""))

    async with running(loop), asyncio.timeout(20):
        await loop.settled()

    assert [(len(turn.outcomes), len(turn.progress)) for turn in store.asked] == [(1, 1), (1, 0)]
    assert "a turn failed (no such progress); trying it without its reports of progress" in caplog.text


async def test_progress_outlives_an_outage_and_a_later_report_replaces_it() -> None:
    store = Store()
    loop = loop_on(store)
    first, other, second = (Progress(id, 1, done, None, "") for id, done in (("a", 1), ("b", 1), ("a", 2)))

    def away(turn: Turn) -> TurnAnswer:
        loop.progress(second)
        raise StoreUnavailable("not now")

    store.answers = [away]
    loop.progress(first)
    loop.progress(other)
    async with running(loop):
        await until(lambda: len(store.asked) == 2)

    assert [sorted(turn.progress, key=lambda p: p.id) for turn in store.asked] == [
        [first, other],
        [second, other],
    ]


async def test_a_turn_that_fails_with_nothing_in_it_is_made_again_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store(fail(ValueError("odd")))
    loop = loop_on(store)
    loop.look()

    async with running(loop):
        await until(lambda: store.looks == 2)
        assert not loop.away

    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        "everloop: the store does not answer (odd); going on when it does"
    ]


async def test_a_call_of_which_nobody_wants_to_know_may_fail_alone() -> None:
    store, sink = Store(*[fail(ValueError("odd"))] * 2), Sink()
    loop = loop_on(store)
    loop.add(call("a"), None)
    loop.add(call("b"), sink)

    async with running(loop):
        await until(lambda: sink.told is not None)

    assert [[each.id for each in turn.adds] for turn in store.asked] == [["a", "b"], ["a"], ["b"]]
    assert sink.told == Added("b", "added")
    assert loop.unflushed == 0


async def test_an_outcome_is_not_lost_when_its_failure_cannot_be_stored_either() -> None:
    store = Store(*[fail(ValueError("odd"))] * 3)
    loop = loop_on(store)
    loop.settle(outcome())

    async with running(loop), asyncio.timeout(20):
        await until(lambda: len(store.asked) == 4)
        await loop.settled()

    assert [turn.outcomes[0].event for turn in store.asked] == [Event.SUCCEED] + [Event.FAIL] * 3
    assert len({turn.outcomes[0].error for turn in store.asked[1:]}) == 1
    error = load_error(store.asked[-1].outcomes[0].error or b"")
    assert "it ran, and its outcome cannot be stored: odd" in str(error)


# -- leases of a process that may have been taken for dead ---------------------------------------------------


class Takes:
    """A taker with room for one."""

    takes_roots = takes_suspects = True

    def __init__(self) -> None:
        self.begun: list[Leased] = []

    def wants(self) -> tuple[int, tuple[Lane, ...]]:
        return 1 - len(self.begun), (LANE,)

    def begin(self, leased: list[Leased]) -> None:
        self.begun += leased

    def cancel(self, cancels: list[Cancel]) -> None:
        raise AssertionError(cancels)

    def lost(self, ids: list[str]) -> None:
        raise AssertionError(ids)


class Leases(Store):
    """Gives one call, again and again, to whoever has room and does not hold it."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[Turn] = []
        self.on_turn: Callable[[], None] = lambda: None

    async def turn(self, session: int, turn: Turn) -> TurnAnswer:
        self.turns.append(turn)
        self.on_turn()
        answer = await super().turn(session, turn)
        if turn.room:
            leased = Leased("call", len(self.turns), LANE, b"j", b"", 0, 0, 0, 0, None, 0, 0)
            return msgspec.structs.replace(answer, leased=[leased])
        return answer


async def test_what_was_leased_while_the_process_stood_still_is_given_back_and_not_begun() -> None:
    store, taker, sure = Leases(), Takes(), True
    loop = loop_on(store)
    loop.taker = taker
    loop.holds = lambda: tuple(each.id for each in taker.begun)
    loop.is_sure = lambda: sure

    def stand_still() -> None:
        nonlocal sure
        sure = len(store.turns) > 2  # the keeper renews again after the second turn
        if sure:
            assert not taker.begun

    store.on_turn = stand_still
    loop.look()
    async with running(loop):
        await until(lambda: bool(taker.begun))

    asked = [(turn.room, turn.holding) for turn in store.turns[:4]]
    # The second turn says that the first one's lease is not held, and asks for none.
    assert asked[:2] == [(1, None), (0, ())]
    assert [each.fence for each in taker.begun] == [
        next(n for n, (room, _) in enumerate(asked, 1) if n > 1 and room)
    ]


# -- looks and waits -----------------------------------------------------------------------------------------


async def test_an_inbox_that_is_not_empty_is_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "POLL", 3_600.0)
    store = Store(lambda turn: TurnAnswer(more=True), lambda turn: TurnAnswer(more=True))
    loop = loop_on(store)
    loop.look()

    async with running(loop):
        await until(lambda: store.looks == 3)


async def test_two_may_wait_for_the_same_turn() -> None:
    go_on = asyncio.Event()

    class Slow(Store):
        async def turn(self, session: int, turn: Turn) -> TurnAnswer:
            await go_on.wait()
            return await super().turn(session, turn)

    store = Slow()
    loop = loop_on(store)
    loop.settle(outcome())
    async with running(loop), asyncio.timeout(20):
        both = asyncio.gather(loop.settled(), loop.settled())
        await until(lambda: loop._turn_made is not None)
        go_on.set()
        await both


async def test_who_waits_for_room_is_let_in_and_who_has_gone_takes_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "UNFLUSHED", 1)
    loop = loop_on(Store())
    loop.add(call("a"), None)
    first, second = (asyncio.ensure_future(loop.room()) for _ in range(2))
    await until(lambda: len(loop._waiters) == 2)

    first.cancel()
    await asyncio.wait([first])
    async with running(loop), asyncio.timeout(20):
        await second
    assert first.cancelled()


async def test_when_a_store_cannot_be_opened_all_who_wait_are_told_and_who_has_gone_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "UNFLUSHED", 1)
    loop, sink, error = loop_on(Store()), Sink(), StoreUnavailable("not there")
    loop.add(call("a"), sink)
    loop.add(call("b"), None)
    loop.settle(outcome())
    first, second = (asyncio.ensure_future(loop.room()) for _ in range(2))
    await until(lambda: len(loop._waiters) == 2)
    first.cancel()
    await asyncio.wait([first])

    loop.refuse_all(error)

    with pytest.raises(StoreUnavailable, match="not there"):
        await second
    assert first.cancelled()
    assert (sink.told, loop.unflushed) == (error, 0)


# -- apart from the turns ------------------------------------------------------------------------------------


class ApartStore:
    """Answers what goes apart; `busy` times first that a key is judged by an open transaction."""

    def __init__(self, busy: int = 0, error: Exception | None = None) -> None:
        self.busy = busy
        self.error = error
        self.asked = 0

    async def add(self, session: int, calls: Sequence[NewCall]) -> list[Added]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        self.busy -= 1
        return [Added(each.id, "busy" if self.busy >= 0 else "added") for each in calls]

    async def cancel(
        self, ids: Sequence[str], message: str, parents: Sequence[Parent | None]
    ) -> list[Cancelled]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return [Cancelled(id, State.READY, asked=True) for id in ids]


def apart_on(store: Any) -> Apart:
    return Apart(store, lambda: 1, lambda: None, lambda ids, unknown, error: None)


async def test_a_call_whose_key_is_judged_by_an_open_transaction_is_asked_for_again() -> None:
    store, sink = ApartStore(busy=2), Sink()
    apart = apart_on(store)
    apart.start()

    apart.add(call("a"), sink)
    async with asyncio.timeout(20):
        await apart.close()

    assert (sink.told, store.asked) == (Added("a", "added"), 3)


async def test_a_closing_app_waits_for_a_busy_key_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "GIVE_UP", 0.01)
    store, sink = ApartStore(busy=1 << 30), Sink()
    apart = apart_on(store)
    apart.start()

    apart.add(call("a"), sink)
    async with asyncio.timeout(20):
        await apart.close()

    assert isinstance(sink.told, StoreUnavailable)
    assert str(sink.told) == (
        "the app is closing, and the call was not submitted: a transaction that is still open has submitted "
        "a call with the same key or id"
    )


async def test_a_closing_app_waits_for_a_store_that_is_away_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "GIVE_UP", 0.01)
    error, sink = StoreUnavailable("it is away"), Sink()
    store = ApartStore(error=error)
    apart = apart_on(store)
    apart.start()

    apart.add(call("a"), sink)
    async with asyncio.timeout(20):
        await apart.close()

    assert sink.told is error


async def test_that_what_goes_apart_waits_for_the_store_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(turns, "GIVE_UP", 0.5)
    monkeypatch.setattr("everloop.engine.apart.SILENT", 0.0)
    store = ApartStore(error=StoreUnavailable("too many connections"))
    apart = apart_on(store)
    apart.start()

    apart.add(call("a"), Sink())
    async with asyncio.timeout(20):
        await until(lambda: store.asked > 3)
        await apart.close()

    said = (
        "everloop: calls with a key or an id of their own, cancellations and waits cannot be asked for "
        "(too many connections)"
    )
    assert [record.message for record in caplog.records] == [said]


async def test_a_cancellation_that_fails_is_said(caplog: pytest.LogCaptureFixture) -> None:
    apart = apart_on(ApartStore(error=ValueError("odd")))
    apart.start()

    apart.cancel("a", "enough")
    apart.cancel("b", "enough")
    await apart.close()

    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        "everloop: 2 calls could not be cancelled: odd"
    ]


async def test_when_a_store_cannot_be_opened_what_went_apart_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error, sink, store = StoreUnavailable("not there"), Sink(), ApartStore()
    apart = apart_on(store)
    apart.add(call("a"), sink)
    apart.cancel("b", "enough")

    apart.fail(error)
    await apart.close()

    assert (sink.told, store.asked) == (error, 0)
    assert "1 calls could not be cancelled: not there" in caplog.text


# -- the group commit ----------------------------------------------------------------------------------------


def batcher(flush: Callable[[Sequence[int]], Awaitable[Sequence[int | Again]]]) -> Batcher[int, int]:
    return Batcher(flush, most=10, name="test")


async def test_an_error_belongs_to_all_who_asked_and_still_wait() -> None:
    async def flush(items: Sequence[int]) -> Sequence[int | Again]:
        futures[0].cancel()
        raise ValueError("odd")

    asking = batcher(flush)
    futures = [asking.ask(number) for number in range(3)]
    await asking.idle()

    assert futures[0].cancelled()
    assert [str(each.exception()) for each in futures[1:]] == ["odd", "odd"]


async def test_an_answer_comes_to_all_who_still_wait() -> None:
    async def flush(items: Sequence[int]) -> Sequence[int | Again]:
        futures[0].cancel()
        return [10 * item for item in items]

    asking = batcher(flush)
    futures = [asking.ask(number) for number in range(3)]
    await asking.idle()

    assert futures[0].cancelled()
    assert [each.result() for each in futures[1:]] == [10, 20]


async def test_what_is_asked_again_holds_up_nobody_and_is_waited_for() -> None:
    flushed: list[list[int]] = []

    async def flush(items: Sequence[int]) -> Sequence[int | Again]:
        flushed.append(list(items))
        return [AGAIN if item == 1 and len(flushed) == 1 else item for item in items]

    asking = batcher(flush)
    again, other = asking.ask(1), asking.ask(2)
    assert await other == 2
    assert not again.done()
    await asking.idle()
    assert (again.result(), flushed) == (1, [[1, 2], [1]])


async def test_a_flush_that_was_cancelled_is_made_again_by_who_waits_for_its_end() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def flush(items: Sequence[int]) -> Sequence[int | Again]:
        began.set()
        await go_on.wait()
        return items

    asking = batcher(flush)
    answer = asking.ask(7)
    await began.wait()
    flushing = asking._flushing
    assert flushing is not None
    flushing.cancel()  # as `asyncio.run` does to every task
    go_on.set()
    await asking.idle()

    assert flushing.cancelled()
    assert answer.result() == 7
