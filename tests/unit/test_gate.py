"""The write gate: fair, for threads and coroutines, and never lost or kept by who has gone."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from everloop._core.errors import StoreUnavailable
from everloop._core.gate import SLOW, Place, WriteGate, write_gate
from tests.helpers.seeds import seed


@pytest.fixture
def gate() -> WriteGate:
    return WriteGate("shop.db")


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, name="everloop-test")
    thread.start()
    return thread


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def in_line(gate: WriteGate, count: int) -> None:
    until(lambda: len(gate._line) == count)


async def test_threads_and_coroutines_are_served_in_the_order_in_which_they_came(gate: WriteGate) -> None:
    order: list[int] = []

    def thread(number: int) -> None:
        with gate.hold(10):
            order.append(number)

    async def coroutine(number: int) -> None:
        async with gate.hold_async(10):
            order.append(number)

    threads: list[threading.Thread] = []
    tasks: list[asyncio.Task[None]] = []
    async with gate.hold_async():
        for number in range(20):
            if number % 2:
                threads.append(in_thread(lambda number=number: thread(number)))
            else:
                tasks.append(asyncio.create_task(coroutine(number)))
                await asyncio.sleep(0)
            in_line(gate, number + 1)
    await asyncio.gather(*tasks)
    for each in threads:
        await asyncio.to_thread(each.join)

    assert order == list(range(20))


async def test_who_is_cancelled_while_waiting_leaves_the_line(gate: WriteGate) -> None:
    async with gate.hold_async():
        waiting = asyncio.create_task(gate.enter(10))
        await asyncio.sleep(0)
        in_line(gate, 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

        in_line(gate, 0)


@pytest.mark.both_loops
async def test_who_is_cancelled_in_the_instant_of_its_turn_passes_it_on(gate: WriteGate) -> None:
    for ticks in range(4):  # before, at, and after the instant in which the loop takes the offer
        first = await gate.enter(10)
        second = asyncio.create_task(gate.enter(10))
        third = asyncio.create_task(gate.enter(10))
        await asyncio.sleep(0)
        first.leave()
        for _ in range(ticks):
            await asyncio.sleep(0)
        second.cancel()

        place = await asyncio.wait_for(third, 5) if not second.done() else None
        if place is None:
            second.result().leave()
            place = await third
        await asyncio.wait([second])
        place.leave()
        assert gate._turn is None


async def test_waiting_for_too_long_names_who_holds_the_gate(gate: WriteGate) -> None:
    async with gate.hold_async(holder="a write transaction of shop.py:41"):
        with pytest.raises(StoreUnavailable) as caught:
            await gate.enter(0.01)
        with (
            pytest.raises(StoreUnavailable, match=r"for 0\.01 s, by a write transaction of shop\.py:41"),
            gate.hold(0.01),
        ):
            pass

    assert str(caught.value) == (
        "shop.db was being written by this process for 0.01 s, by a write transaction of shop.py:41: SQLite "
        "has one writer at a time. Commit that transaction earlier, or leave its `async with` block"
    )
    assert gate._turn is None and not gate._line


async def test_a_blocked_loop_does_not_keep_a_thread_waiting_and_keeps_its_place(gate: WriteGate) -> None:
    order: list[str] = []

    def thread() -> None:
        with gate.hold(10):
            order.append("thread")

    async def coroutine(name: str) -> None:
        async with gate.hold_async(10):
            order.append(name)

    holder = await gate.enter(1)
    tasks = [asyncio.create_task(coroutine(name)) for name in ("first", "second")]
    await asyncio.sleep(0)
    waiting = in_thread(thread)
    in_line(gate, 3)
    holder.leave()
    until(lambda: order == ["thread"])  # this loop is blocked here, and does not take its offer
    await asyncio.gather(*tasks)
    await asyncio.to_thread(waiting.join)

    assert order == ["thread", "first", "second"]


async def test_a_loop_that_answers_is_not_passed(gate: WriteGate) -> None:
    order: list[str] = []

    async def coroutine() -> None:
        async with gate.hold_async(10):
            await asyncio.sleep(3 * SLOW)  # holding for long is not being slow to take
            order.append("coroutine")

    def thread() -> None:
        with gate.hold(10):
            order.append("thread")

    holder = await gate.enter(1)
    task = asyncio.create_task(coroutine())
    await asyncio.sleep(0)
    waiting = in_thread(thread)
    in_line(gate, 2)
    holder.leave()
    await task
    await asyncio.to_thread(waiting.join)

    assert order == ["coroutine", "thread"]


def test_who_waits_on_a_loop_that_is_closed_is_passed_over(gate: WriteGate) -> None:
    loop = asyncio.new_event_loop()

    async def wait() -> None:
        await gate.enter(10)

    with gate.hold(1):
        abandoned = loop.create_task(wait())
        loop.run_until_complete(asyncio.sleep(0))
        in_line(gate, 1)
        loop.close()
    with gate.hold(1):
        pass

    abandoned._log_destroy_pending = False  # type: ignore[attr-defined]  # it is meant to be abandoned
    assert gate._turn is None


def test_a_thread_is_woken_by_whoever_leaves_before_it(
    gate: WriteGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everloop._core.gate.SLOW", 3_600.0)  # it does not look by itself
    entered = threading.Event()

    def enter() -> None:
        with gate.hold(timeout=3_600):
            entered.set()

    thread = threading.Thread(target=enter, daemon=True)
    with gate.hold(timeout=1):
        thread.start()
        while not gate._changed._waiters:  # type: ignore[attr-defined]  # it is asleep only then
            time.sleep(0)
    assert entered.wait(20)
    thread.join()


def test_leaving_twice_leaves_once(gate: WriteGate) -> None:
    async def main() -> Place:
        return await gate.enter(1)

    place = asyncio.run(main())
    place.leave()
    with gate.hold(1):
        place.leave()
        assert gate._turn is not None
    assert gate._turn is None


async def test_random_threads_and_cancelled_coroutines_exclude_each_other(gate: WriteGate) -> None:
    rng = random.Random(seed())
    inside = 0
    entered = 0

    def enter() -> None:
        nonlocal inside, entered
        inside += 1
        entered += 1
        assert inside == 1

    def leave() -> None:
        nonlocal inside
        inside -= 1

    def thread(pauses: list[float]) -> None:
        for pause in pauses:
            with gate.hold(10):
                enter()
                time.sleep(pause)
                leave()

    async def coroutine(pause: float) -> None:
        async with gate.hold_async(10):
            enter()
            try:
                await asyncio.sleep(pause)
            finally:
                leave()

    pauses = [[rng.random() / 2000 for _ in range(50)] for _ in range(3)]
    threads = [in_thread(lambda each=each: thread(each)) for each in pauses]
    tasks: set[asyncio.Task[None]] = set()
    for _ in range(300):
        tasks.add(asyncio.create_task(coroutine(rng.random() / 2000)))
        await asyncio.sleep(rng.random() / 1000)
        rng.choice(sorted(tasks, key=id)).cancel()
    await asyncio.wait(tasks)
    for each in threads:
        await asyncio.to_thread(each.join)

    assert all(task.cancelled() or task.exception() is None for task in tasks)
    assert inside == 0 and entered >= 150
    assert gate._turn is None and not gate._line


def test_a_file_has_one_gate_whatever_its_path_is_called(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    one = write_gate(tmp_path / "shop.db")

    assert write_gate(tmp_path / "link" / "shop.db") is one
    assert write_gate(tmp_path / "other.db") is not one


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_free_gates(tmp_path: Path) -> None:
    with write_gate(tmp_path / "shop.db").hold(1):
        child = os.fork()
        if child == 0:
            try:
                with write_gate(tmp_path / "shop.db").hold(1):
                    os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
