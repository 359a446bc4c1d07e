"""What bodies log and print is kept with their calls: exact, bounded, and apart from everything else."""

from __future__ import annotations

import asyncio
import builtins
import logging
import sys
import threading
from collections.abc import Iterator
from io import StringIO

import pytest

from everloop import App, LogLine, OptionError, Retry, Task, current
from everloop._core.errors import StoreError, StoreUnavailable
from everloop._core.logs import LogChunk
from everloop.engine import scribe
from everloop.store.memory import MemoryStore

log = logging.getLogger("shop")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(scribe, "GATHER", 0.005)
    monkeypatch.setattr(scribe, "AGAIN", 0.005)
    before, make = builtins.print, logging.getLogRecordFactory()
    log.setLevel(logging.DEBUG)
    yield
    log.setLevel(logging.NOTSET)
    assert builtins.print is before
    assert logging.getLogRecordFactory() is make


async def lines(task: Task[object], least: int) -> list[LogLine]:
    """Return what a task has logged, once so many lines of it are stored."""
    async with asyncio.timeout(20):
        while len(found := await task.logs()) < least:
            await asyncio.sleep(0.002)
    return found


async def test_what_a_body_logs_and_prints_is_kept_with_its_call(
    app: App, capsys: pytest.CaptureFixture[str]
) -> None:
    @app.task(retries=Retry(1, delay=0))
    async def work(n: int) -> int:
        log.info("got %d", n)
        print("printed", n, sep="-")
        print("to the other side", file=sys.stderr)
        log.debug("not worth keeping")
        try:
            raise KeyError("caught")
        except KeyError:
            log.exception("it failed")
        if current().attempt == 1:
            raise ValueError("once more")
        return n

    async with app.worker():
        task = await app.submit(work(7))
        await task
        found = await lines(task, 8)

    assert [(line.attempt, line.level, line.logger, line.text.split("\n")[0]) for line in found] == [
        (attempt, *rest)
        for attempt in (1, 2)
        for rest in (
            ("INFO", "shop", "got 7"),
            ("print", "", "printed-7"),
            ("print", "", "to the other side"),
            ("ERROR", "shop", "it failed"),
        )
    ]
    assert found[3].text.endswith("KeyError: 'caught'")
    assert "Traceback" in found[3].text
    assert [line.at for line in found] == sorted(line.at for line in found)
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("to the other side\n")) == ("printed-7\nprinted-7\n", 2)


async def test_thousands_of_bodies_that_interleave_keep_their_lines_apart(app: App) -> None:
    @app.task
    async def child(n: int) -> None:
        async def inner(part: str) -> None:
            await asyncio.sleep(0)
            log.info("%d %s", n, part)

        for step in range(3):
            log.info("%d step %d", n, step)
            await asyncio.sleep(0)
        await asyncio.gather(inner("left"), inner("right"))
        await asyncio.to_thread(log.info, "%d from a thread", n)

    @app.task(run="thread")
    def blocking(n: int) -> None:
        log.info("%d in a thread", n)
        print(n, "printed")

    async with app.worker(concurrency=300):
        tasks = [await app.submit(child(n)) for n in range(300)]
        threads = [await app.submit(blocking(n)) for n in range(30)]
        await asyncio.gather(*tasks, *threads)
        for n, task in enumerate(tasks):
            texts = [line.text for line in await lines(task, 6)]
            assert texts[:3] == [f"{n} step {step}" for step in range(3)]
            assert sorted(texts[3:]) == [f"{n} from a thread", f"{n} left", f"{n} right"]
        for n, task in enumerate(threads):
            assert [line.text for line in await lines(task, 2)] == [f"{n} in a thread", f"{n} printed"]


async def test_a_call_that_logs_nothing_has_no_page_and_no_row(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scribe, "Page", None)  # whoever made one would fail

    @app.task
    async def quiet() -> int:
        log.debug("below the level")
        return 1

    async with app.worker():
        task = await app.submit(quiet())
        assert await task == 1
        assert await task.logs() == []
        log.info("outside of any body")


async def test_of_a_run_that_logs_too_much_the_first_and_the_last_are_kept(app: App) -> None:
    @app.task
    async def chatty() -> None:
        for n in range(5_000):
            log.info("line %d %s", n, "x" * 50)
        log.info("y" * 20_000)

    async with app.worker():
        task = await app.submit(chatty())
        await task
        found = await lines(task, 500)

    (note,) = [n for n, line in enumerate(found) if line.level == "NOTE"]
    first, last = found[:note], found[note + 1 :]
    assert first[0].text.startswith("line 0 ")
    assert len(found) < 1_000
    assert last[-1].text.startswith("y" * 4096)
    assert "11,808 characters left out" in last[-1].text
    assert found[note].logger == "everloop"
    left_out = 5_001 - len(first) - len(last)
    assert found[note].text.startswith(f"{left_out:,} records (")
    assert sum(len(line.text) for line in found) < scribe.HEAD + scribe.TAIL


async def test_partial_lines_are_kept_when_they_end_or_the_body_does(app: App) -> None:
    @app.task
    async def drip() -> None:
        print("a", end="")
        print("b", end=" ")
        print("c\nd")
        print("no end", end="")
        print("elsewhere", file=StringIO())

    async with app.worker():
        task = await app.submit(drip())
        await task
        assert [line.text for line in await lines(task, 3)] == ["ab c", "d", "no end"]


async def test_records_that_cannot_be_formatted_break_nothing(app: App) -> None:
    class Bad(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @app.task
    async def work() -> int:
        logging.raiseExceptions = False
        try:
            log.info("%d", "no number")
            try:
                raise Bad
            except Bad:
                log.exception("lone \ud800")
        finally:
            logging.raiseExceptions = True
        return 1

    async with app.worker():
        task = await app.submit(work())
        assert await task == 1
        found = await lines(task, 2)

    assert found[0].text.startswith("'%d' (which could not be formatted: TypeError(")
    assert found[1].text.startswith("lone \\ud800\n")


class Flaky(MemoryStore):
    """A store that does not take what is logged at first, and answers as it is told to."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)
        self.taken: list[list[LogChunk]] = []

    async def log(self, chunks: list[LogChunk]) -> None:  # type: ignore[override]
        self.taken.append(list(chunks))
        if self.errors:
            await super().log(chunks[:1])  # some of it may have been stored
            raise self.errors.pop(0)
        await super().log(chunks)


def on(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> App:
    app = App("test", "memory://")
    monkeypatch.setattr(app, "open_store", lambda: store)
    return app


async def test_what_the_store_did_not_take_goes_again_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Flaky(StoreUnavailable("away"), StoreUnavailable("still away"))
    app = on(store, monkeypatch)
    more, go = asyncio.Event(), asyncio.Event()

    @app.task
    async def work() -> None:
        log.info("one")
        await more.wait()
        log.info("two")
        go.set()

    async with app.worker():
        task = await app.submit(work())
        async with asyncio.timeout(20):
            while not store.taken:
                await asyncio.sleep(0.001)
        more.set()
        await go.wait()
        assert [line.text for line in await lines(task, 2)] == ["one", "two"]
        await task
    assert store.taken[0] == store.taken[1] == store.taken[2]


async def test_what_no_store_takes_holds_up_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = on(Flaky(StoreError("too large")), monkeypatch)

    @app.task
    async def work(text: str) -> None:
        log.info(text)

    async with app.worker():
        await app.submit(work("one"))
        async with asyncio.timeout(20):
            while "cannot be written: too large" not in caplog.text:
                await asyncio.sleep(0.001)
        task = await app.submit(work("two"))
        assert [line.text for line in await lines(task, 1)] == ["two"]


async def test_what_is_logged_last_is_written_before_the_worker_ends(app: App) -> None:
    @app.task
    async def work() -> None:
        log.info("last words")

    async with app:
        async with app.worker():
            task = await app.submit(work())
            await task
        assert [line.text for line in await task.logs()] == ["last words"]


async def test_capturing_can_be_switched_off_and_its_level_chosen(store: str) -> None:
    for level, wanted in (
        (None, []),
        ("warning", ["printed", "loud"]),
        (logging.DEBUG, ["soft", "printed", "loud"]),
    ):
        app = App("test", store, logs=level)

        @app.task(name=f"work {level}")
        async def work() -> None:
            log.debug("soft")
            print("printed")
            log.warning("loud")

        async with app:
            async with app.worker():
                task = await app.submit(work())
                await task
            assert [line.text for line in await task.logs()] == wanted


def test_a_wrong_level_is_refused() -> None:
    with pytest.raises(OptionError) as caught:
        App("test", "memory://", logs="INFOO")
    assert str(caught.value) == (
        "`App(logs=)` is a level of logging such as 'INFO', or None, not 'INFOO'; did you mean 'INFO'?"
    )
    with pytest.raises(OptionError, match=r"or None, not True$"):
        App("test", "memory://", logs=True)


async def test_a_body_left_behind_logs_into_nothing(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, begun = threading.Event(), threading.Event()

    @app.task
    def sit() -> None:
        begun.set()
        gate.wait(20)
        log.info("too late")

    async def at_once(*_args: object, **_rest: object) -> tuple[set[object], set[object]]:
        return set(), set()

    async with app:
        async with app.worker():
            task = await app.submit(sit())
            await asyncio.to_thread(begun.wait, 20)
            monkeypatch.setattr("everloop.engine.worker.asyncio.wait", at_once)
            session = app._sessions.current().session
            assert session.worker is not None
            attempt = next(iter(session.worker._attempts.values()))
            await session._drain(session.worker, 0)
            monkeypatch.undo()
            gate.set()
            assert attempt.task is not None
            await asyncio.wait([attempt.task])
        assert await task.logs() == []
