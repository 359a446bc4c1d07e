"""What a client does with calls: submit, observe from anywhere, list, cancel, retry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import everloop
from everloop import (
    App,
    Call,
    IdConflict,
    NoCurrentCall,
    NotRetryable,
    OptionError,
    Task,
    TaskFunction,
    TaskNotFound,
    UsageError,
)
from everloop._core.ids import new_id
from everloop._core.records import Turn, TurnAnswer
from everloop.engine.turns import UNFLUSHED
from everloop.store.sql.store import SqliteStore
from tests.engine.conftest import until_counted
from tests.helpers.waiting import until


def run_by_hand(main: Any) -> None:
    """Drive a loop oneself."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main)
    loop.close()


class Scene:
    """Functions whose calls end as they are told."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.gate = asyncio.Event()
        self.began: list[int] = []
        self.stopped: list[str] = []

        @app.task
        async def work(n: int) -> int:
            self.began.append(n)
            return n

        @app.task(aliases=["keep"])
        async def hold(n: int) -> int:
            self.began.append(n)
            try:
                await self.gate.wait()
            except asyncio.CancelledError as error:
                self.stopped.append(str(error))
                raise
            return n

        @app.task
        async def fail(n: int) -> int:
            raise ValueError(f"{n} is bad")

        self.work: TaskFunction[[int], int] = work
        self.hold: TaskFunction[[int], int] = hold
        self.fail: TaskFunction[[int], int] = fail

    async def in_state(self, state: str) -> Task[int]:
        """Return a task in this state; a worker of the queue "default" runs."""
        if state == "waiting":
            before = await self.app.submit(self.hold(0), on_done=after_of(self.app))
            (waiting,) = await self.app.tasks(state="waiting")
            assert waiting.id != before.id
            return waiting
        call = {"leased": self.hold, "failed": self.fail}.get(state, self.work)(1)
        if state in ("scheduled", "cancelled", "expired"):
            call = call.options(delay=3_600)
        if state == "expired":
            call = call.options(expires=0)
        if state == "ready":
            call = call.options(queue="unserved")
        task = await self.app.submit(call)
        if state == "leased":
            await until(lambda: 1 in self.began)
        if state == "cancelled":
            assert await self.app.cancel(task.id)
        if state in ("succeeded", "failed", "cancelled", "expired"):
            await asyncio.wait([task], timeout=20)
        await task.refresh()
        assert task.state == state
        return task


def after_of(app: App) -> TaskFunction[..., None]:
    @app.task
    async def after(task: Task[int]) -> None:
        assert task.done()

    return after


LIVE = ["waiting", "scheduled", "ready", "leased"]
FINAL = ["succeeded", "failed", "cancelled", "expired"]


@pytest.fixture
def shared(store: str, tmp_path: Path) -> str:
    """The URL of a store of each kind that several apps share."""
    return f"memory://{tmp_path}" if store.startswith("memory") else store


# -- submitting ---------------------------------------------------------------------------------------------


async def test_submit_returns_a_stored_detached_task(app: App) -> None:
    scene = Scene(app)
    async with app:
        task = await app.submit(scene.work(1))
        assert (await app.counts())["ready"] == 1
        assert (task.state, task.name, task.owned, task.attempts) == ("ready", "work", False, 0)
        with pytest.raises(asyncio.InvalidStateError):
            task.result()


async def test_submit_many_returns_its_tasks_in_order(app: App) -> None:
    scene = Scene(app)
    async with app.worker():
        tasks = await app.submit_many((scene.work(n) for n in range(2_500)), tags=["many"])
        assert await asyncio.gather(*tasks) == list(range(2_500))
        assert {task.id for task in await app.tasks(tag="many", limit=3_000)} == {task.id for task in tasks}


async def test_in_submit_many_a_refused_call_fails_none_of_its_neighbours(app: App) -> None:
    scene = Scene(app)
    id = new_id()
    async with app.worker():
        await app.submit(scene.work(0), id=id)
        tasks = await app.submit_many([scene.work(1), scene.work(2).options(id=id), scene.work(3)])
        assert isinstance(tasks[1].exception(), IdConflict)
        assert [await tasks[0], await tasks[2]] == [1, 3]


class Gated(SqliteStore):
    """A store whose turns wait for a gate."""

    gate: asyncio.Event

    async def turn(self, session: int, turn: Turn) -> TurnAnswer:
        await self.gate.wait()
        return await super().turn(session, turn)


async def test_submit_waits_while_ten_thousand_calls_are_unflushed(tmp_path: Path) -> None:
    app = App("test", "memory://", embed=False)
    store = Gated(tmp_path / "store.db")
    store.gate = asyncio.Event()
    app.open_store = lambda: store  # type: ignore[method-assign]  # its seam
    scene = Scene(app)

    async with app.worker():
        turns = app._sessions.current().session.turns
        tasks: list[Task[int]] = []
        while turns.unflushed < UNFLUSHED:
            tasks += [app.create_task(scene.work(n)) for n in range(100)]
            await asyncio.sleep(0)
        waiting = [asyncio.ensure_future(app.submit(scene.work(n))) for n in range(50)]
        many = asyncio.ensure_future(app.submit_many(scene.work(n) for n in range(3_000)))
        for _ in range(10):
            await asyncio.sleep(0)
            assert turns.unflushed <= UNFLUSHED + 1_000, "submit_many hands over a thousand at a time"
        assert not any(each.done() for each in [*waiting, many])
        assert len(tasks) <= UNFLUSHED + 2_100
        store.gate.set()
        async with asyncio.timeout(40):
            await asyncio.gather(*await asyncio.gather(*waiting), *await many, *tasks)
        assert turns.unflushed == 0


# -- windows ------------------------------------------------------------------------------------------------


class Source:
    """Gives calls as they are asked for, and notes how many are not received back."""

    def __init__(self, make: Callable[[int], Call[int]], calls: int) -> None:
        self.make = make
        self.calls = calls
        self.given = 0
        self.received = 0
        self.most = 0

    def __iter__(self) -> Iterator[Call[int]]:
        for n in range(self.calls):
            self.given += 1
            self.most = max(self.most, self.given - self.received)
            yield self.make(n)

    async def __aiter__(self) -> AsyncIterator[Call[int]]:
        for call in iter(self):
            await asyncio.sleep(0)
            yield call


@pytest.mark.parametrize("window", [1, 2, 7, 100, 1_000])
async def test_at_most_a_window_of_calls_is_unfinished(app: App, window: int) -> None:
    source = Source(Scene(app).work, 300)
    values: list[int] = []
    async with app.worker():
        async for task in app.as_completed(iter(source), window=window):
            source.received += 1
            values.append(task.result())

    assert sorted(values) == list(range(300))
    assert 1 <= source.most <= min(window, 300)


async def test_of_a_million_calls_only_those_of_the_window_are_made(app: App) -> None:
    source = Source(Scene(app).work, 1_000_000)
    async with app.worker():
        completed = app.as_completed(iter(source), window=20)
        async for task in completed:
            source.received += 1
            assert task.result() >= 0
            if source.received == 200:
                break
        assert isinstance(completed, AsyncGenerator)
        await completed.aclose()
        assert source.given <= 200 + 20
        await until_counted(app, "succeeded", source.given)


async def test_calls_may_come_asynchronously(app: App) -> None:
    source = Source(Scene(app).work, 50)
    async with app.worker():
        tasks = [task async for task in app.as_completed(source.__aiter__(), window=5)]

    assert sorted(task.result() for task in tasks) == list(range(50))


async def test_failed_and_refused_calls_are_yielded_like_the_others(app: App) -> None:
    scene = Scene(app)
    id = new_id()
    async with app.worker():
        await app.submit(scene.work(0), id=id)
        calls = [scene.work(1), scene.fail(2), scene.work(3).options(id=id)]
        ended = [task async for task in app.as_completed(calls, window=2)]

    failures = [task.exception() for task in ended]
    assert [error for error in failures if isinstance(error, IdConflict)]
    assert sorted(str(error)[:5] for error in failures) == ["2 is ", "None", "the i"]


async def test_a_window_of_nothing_is_refused(app: App) -> None:
    async with app:
        with pytest.raises(OptionError, match="`window` is at least 1, not 0"):
            async for _ in app.as_completed([], window=0):
                pass


async def test_in_a_task_the_calls_of_a_window_are_its_children(app: App) -> None:
    scene = Scene(app)

    @app.task
    async def total(calls: int) -> int:
        return sum(
            [task.result() async for task in app.as_completed(map(scene.work, range(calls)), window=3)]
        )

    async with app.worker(concurrency=1):
        assert await total(20) == sum(range(20))


# -- from elsewhere -----------------------------------------------------------------------------------------


async def test_another_app_object_on_the_store_gets_the_task(shared: str) -> None:
    app, other = App("test", shared), App("test", shared)
    scene, declared = Scene(app), Scene(other)
    async with app.worker(), other:
        task = await app.submit(scene.hold(7))
        untyped = await other.get_task(task.id)
        typed = await other.get_task(task.id, declared.hold)
        assert not untyped.done()
        scene.gate.set()
        assert [await untyped, await typed, await task] == [7, 7, 7]
        late = await other.get_task(task.id)
        assert (late.done(), late.result(), late.state, late.attempts) == (True, 7, "succeeded", 1)


async def test_an_app_without_the_function_gets_values_and_failures(shared: str) -> None:
    app, stranger = App("test", shared), App("test", shared)
    scene = Scene(app)
    async with app.worker(), stranger:
        good, bad = await app.submit(scene.work(7)), await app.submit(scene.fail(8))
        assert await (await stranger.get_task(good.id)) == 7
        with pytest.raises(ValueError, match="8 is bad"):
            await (await stranger.get_task(bad.id))


async def test_get_task_refuses_what_is_not_there_or_another_functions(app: App) -> None:
    scene = Scene(app)
    async with app:
        task = await app.submit(scene.work(1))
        missing = new_id()
        with pytest.raises(TaskNotFound, match=f"no call has the id '{missing}'; it was not sub"):
            await app.get_task(missing)
        with pytest.raises(TaskNotFound, match="no call has the id 'x' \\(an id looks like"):
            await app.get_task("x")
        with pytest.raises(TaskNotFound, match=f"the call {task.id} is one of 'work', not of 'hold'"):
            await app.get_task(task.id, scene.hold)


async def test_a_call_under_an_old_name_is_one_of_its_function(shared: str) -> None:
    old, new = App("test", shared), App("test", shared)
    scene = Scene(new)

    @old.task
    async def keep(n: int) -> int:
        return n

    async with old, new.worker():
        task = await old.submit(keep(7))
        scene.gate.set()
        assert await (await new.get_task(task.id, scene.hold)) == 7


async def test_cancelling_who_observes_leaves_the_call_alone(app: App) -> None:
    scene = Scene(app)
    async with app.worker():
        task = await app.submit(scene.hold(1))
        observed = await app.get_task(task.id, scene.hold)

        async def wait() -> int:
            return await observed

        waiting = asyncio.create_task(wait())
        await until(lambda: scene.began == [1])
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        scene.gate.set()
        assert await task == 1

    assert scene.stopped == []


# -- listing ------------------------------------------------------------------------------------------------


async def test_counts_name_every_state_of_this_app(shared: str) -> None:
    app, neighbour = App("test", shared), App("neighbour", shared)
    scene, beside = Scene(app), Scene(neighbour)
    async with neighbour, app:
        assert await app.counts() == dict.fromkeys(LIVE + FINAL, 0)
        await neighbour.submit(beside.work(1))
        async with app.worker(queues=["default"]):
            for state in LIVE + FINAL:
                await scene.in_state(state)
            assert await app.counts() == dict.fromkeys(LIVE + FINAL, 1) | {"leased": 2}
            assert await app.counts("unserved") == dict.fromkeys(LIVE + FINAL, 0) | {"ready": 1}
        assert (await neighbour.counts())["ready"] == 1


async def test_listings_filter_by_state_queue_name_and_tag(app: App) -> None:
    scene = Scene(app)
    async with app.worker(queues=["default"]):
        by_state = {state: await scene.in_state(state) for state in LIVE[1:] + FINAL}
        tagged = await app.submit(scene.work(2), tags=["a", "b"])
        await tagged

        async def ids(**filters: Any) -> list[str]:
            return [task.id for task in await app.tasks(**filters)]

        for state in ("scheduled", "ready", "leased", "failed", "cancelled", "expired"):
            assert await ids(state=state) == [by_state[state].id]
        assert set(await ids(state=("failed", "expired"))) == {by_state["failed"].id, by_state["expired"].id}
        assert await ids(queue="unserved") == [by_state["ready"].id]
        assert await ids(name="fail") == [by_state["failed"].id]
        assert await ids(tag="b") == await ids(tag="a", state="succeeded") == [tagged.id]
        assert await ids(tag="c") == []
        assert await ids(name="work", state="failed") == []
        with pytest.raises(OptionError, match=r"unknown state 'faild'; did you mean 'failed'"):
            await app.tasks(state="faild")


async def test_pages_show_everything_once_newest_first(app: App) -> None:
    scene = Scene(app)
    async with app:
        tasks = await app.submit_many(scene.work(n) for n in range(25))
        seen: list[str] = []
        before: str | None = None
        while page := await app.tasks(limit=10, before=before):
            assert len(page) <= 10
            seen += [task.id for task in page]
            before = page[-1].id

    assert seen == [task.id for task in tasks][::-1]


async def test_a_listed_task_can_be_awaited_cancelled_and_called_back(app: App) -> None:
    scene = Scene(app)
    seen: list[int] = []
    async with app.worker():
        await app.submit_many(scene.hold(n) for n in range(3))
        await until(lambda: len(scene.began) == 3)
        first, second, third = await app.tasks(state="leased")
        first.cancel()
        second.add_done_callback(lambda task: seen.append(task.result()))
        with pytest.raises(asyncio.CancelledError):
            await first
        scene.gate.set()
        assert await third == 0
        await until(lambda: seen == [1])


# -- retrying, cancelling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", FINAL)
async def test_retry_submits_a_finished_call_anew_and_changes_nothing_final(app: App, state: str) -> None:
    scene = Scene(app)
    async with app.worker(queues=["default"]):
        old = await scene.in_state(state)
        new = await app.retry(old.id)
        assert new.id != old.id
        if state == "failed":
            with pytest.raises(ValueError, match="1 is bad"):
                await new
        else:
            assert await new == 1, "at once, and in its time"
        await old.refresh()
        assert old.state == state
        (snapshot,) = await app._sessions.current().session.store.get([new.id])
        assert snapshot is not None
        assert snapshot.retry_of == old.id


async def test_a_retried_call_keeps_its_options(app: App) -> None:
    scene = Scene(app)
    async with app.worker():
        call = scene.fail(1).options(retries=everloop.Retry(2, delay=0), priority=7, tags=["x"])
        old = await app.submit(call)
        await asyncio.wait([old])
        new = await app.retry(old.id)
        await asyncio.wait([new])
        await new.refresh()
        assert (old.attempts, new.attempts) == (3, 3)
        assert {task.id for task in await app.tasks(tag="x")} == {old.id, new.id}
        (snapshot,) = await app._sessions.current().session.store.get([new.id])
        assert snapshot is not None
        assert snapshot.priority == 7


@pytest.mark.parametrize("state", LIVE)
async def test_a_live_call_is_not_retried(app: App, state: str) -> None:
    scene = Scene(app)
    async with app.worker(queues=["default"]):
        task = await scene.in_state(state)
        with pytest.raises(NotRetryable, match=f"is {state}: only a finished call can be retried"):
            await app.retry(task.id)
        with pytest.raises(TaskNotFound):
            await app.retry(new_id())


@pytest.mark.parametrize("state", LIVE)
async def test_cancel_by_id_ends_a_live_call(app: App, state: str) -> None:
    scene = Scene(app)
    async with app.worker(queues=["default"]):
        task = await scene.in_state(state)
        assert await app.cancel(task.id, "not needed") is True
        with pytest.raises(asyncio.CancelledError):
            await task
        await task.refresh()
        assert (task.state, task.cancelled()) == ("cancelled", True)
        assert await app.cancel(task.id) is False

    assert scene.stopped[:1] == (["not needed"] if state == "leased" else scene.stopped[:1])


@pytest.mark.parametrize("state", FINAL)
async def test_cancel_by_id_leaves_a_finished_call(app: App, state: str) -> None:
    scene = Scene(app)
    async with app.worker(queues=["default"]):
        task = await scene.in_state(state)
        assert await app.cancel(task.id) is False
        await task.refresh()
        assert task.state == state
        with pytest.raises(TaskNotFound, match="no call has the id"):
            await app.cancel(new_id())


# -- order and time -----------------------------------------------------------------------------------------


async def test_higher_priorities_go_first_and_equals_in_order(app: App) -> None:
    scene = Scene(app)
    async with app:
        for n, priority in enumerate([0, 5, -5, 5, 0, 100, -100]):
            await app.submit(scene.work(n), priority=priority)
        async with app.worker(concurrency=1):
            await until_counted(app, "succeeded", 7)

    assert scene.began == [5, 1, 3, 0, 4, 2, 6]


async def test_a_child_takes_its_parents_priority_unless_it_has_one(app: App) -> None:
    scene = Scene(app)
    children: list[str] = []

    @app.task
    async def parent() -> None:
        same, own = app.create_task(scene.work(1)), app.create_task(scene.work(2).options(priority=0))
        children.extend([same.id, own.id])
        await asyncio.gather(same, own)

    async with app.worker():
        await parent().options(priority=9)
        found = await app._sessions.current().session.store.get(children)

    assert [snapshot and snapshot.priority for snapshot in found] == [9, 0]


async def test_what_is_put_off_starts_in_its_time_and_the_later_option_replaces_the_other(app: App) -> None:
    scene = Scene(app)
    soon, later = datetime.now(UTC) + timedelta(milliseconds=80), datetime.now(UTC) + timedelta(days=1)
    async with app.worker():
        tasks = [
            await app.submit(scene.work(1), delay=timedelta(milliseconds=120)),
            await app.submit(scene.work(2), at=soon),
            await app.submit(scene.work(3).options(at=later), delay=0),
            await app.submit(scene.work(4).options(delay=3_600), at=datetime(2020, 1, 1, tzinfo=UTC)),
        ]
        far = [
            await app.submit(scene.work(5), at=later),
            await app.submit(scene.work(6).options(delay=0), at=later),
        ]
        assert sorted(await asyncio.gather(*tasks)) == [1, 2, 3, 4]
        assert datetime.now(UTC) >= soon
        assert [task.state for task in far] == ["scheduled"] * 2
        assert (await app.counts())["scheduled"] == 2


# -- inside -------------------------------------------------------------------------------------------------


async def test_progress_is_seen_from_outside_and_the_last_one_stays(app: App) -> None:
    gate = asyncio.Event()

    @app.task
    async def copy(files: int) -> int:
        current = everloop.current()
        current.progress(0)
        for n in range(files):
            current.progress(n, files, f"file {n}")
        await gate.wait()
        current.progress(files, files, "done")
        return files

    async with app.worker():
        task = await app.submit(copy(3))
        assert repr(task.progress) == "None"
        async with asyncio.timeout(20):
            while repr(task.progress) != "Progress(2/3, 'file 2')":
                await asyncio.sleep(0.001)
                await task.refresh()
        gate.set()
        await task
        await task.refresh()
        last = task.progress

    assert last is not None
    assert (last.done, last.total, last.note) == (3, 3, "done")


async def test_current_tells_of_this_call_in_each_of_its_tasks(app: App) -> None:
    async def below() -> tuple[str, str, str, int]:
        current = everloop.current()
        return current.id, current.name, current.queue, current.attempt

    @app.task(queue="special")
    async def ask() -> list[tuple[str, str, str, int]]:
        return [await below(), await asyncio.create_task(below())]

    async with app.worker():
        tasks = [await app.submit(ask()) for _ in range(20)]
        for task in tasks:
            assert await task == [(task.id, "ask", "special", 1)] * 2


async def test_outside_of_a_call_nothing_is_current(app: App) -> None:
    @app.task
    async def ask() -> str:
        return everloop.current().id

    for _ in range(2):
        with pytest.raises(NoCurrentCall, match=r"`everloop\.current\(\)` was called outside a task"):
            everloop.current()
        with pytest.raises(NoCurrentCall):
            await ask.plain()


async def test_current_tells_why_a_body_is_stopped(app: App) -> None:
    seen: list[str | None] = []
    began = 0

    @app.task
    async def stay() -> None:
        nonlocal began
        began += 1
        seen.append(everloop.current().stopping)
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(everloop.current().stopping)

    async with app:
        async with app.worker():
            task = await app.submit(stay())
            await until(lambda: began == 1)
            await app.cancel(task.id)
            await asyncio.wait([task])
            await asyncio.wait([await app.submit(stay(), timeout=0.01)])
            await app.submit(stay())
            await until(lambda: began == 3)
        counts = await app.counts()

    assert seen == [None, "cancelled", None, "timeout", None, "shutdown"]
    assert (counts["cancelled"], counts["failed"], counts["ready"]) == (1, 1, 1)


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("run", [asyncio.run, run_by_hand])
def test_what_was_scheduled_is_submitted_though_the_loop_ends_before_the_store_is_open(
    sqlite: str, run: Callable[[Any], None], existing: bool
) -> None:
    app = App("shop", sqlite, embed=False)

    @app.task
    async def work(n: int) -> int:
        return n

    async def main() -> None:
        for n in range(5):
            app.create_task(work(n))

    if existing:
        asyncio.run(app.counts())
    run(main())
    assert asyncio.run(app.counts())["ready"] == 5


def test_that_the_store_could_not_be_opened_for_what_was_scheduled_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store.db").write_text("this is no SQLite file, and is long enough to be seen as one" * 100)
    app = App("shop", f"sqlite:///{tmp_path}/store.db", embed=False)

    @app.task
    async def work() -> None: ...

    async def main() -> None:
        app.create_task(work())

    asyncio.run(main())
    assert "calls were not submitted, for the store could not be opened: " in caplog.text


async def test_a_call_of_another_app_is_refused(app: App) -> None:
    other = App("stock", "memory://")

    @other.task
    async def count() -> None: ...

    with pytest.raises(UsageError, match=r"count\(\) is a task function of the app 'stock', not of "):
        await app.submit(count())
