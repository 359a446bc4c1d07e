"""What a worker makes of a body that raises, takes too long, or ends its process."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import pytest

import everloop
from everloop import (
    App,
    Call,
    ResultNotStorable,
    Retry,
    RetryAfter,
    Task,
    TaskCrashed,
    TaskExpired,
    TaskFailed,
)
from everloop._core.calls import Event
from everloop._core.records import Outcome
from everloop.engine import executor
from everloop.engine.turns import TurnLoop
from tests.helpers.processes import started
from tests.helpers.waiting import until

#: Repeats at once.
AT_ONCE = Retry(3, delay=0)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Event, float]]:
    """What the worker decided, and the seconds that it put a call off for; none of them is waited."""
    seen: list[tuple[Event, float]] = []
    settle = TurnLoop.settle

    def settle_at_once(turns: TurnLoop, outcome: Outcome) -> None:
        seen.append((outcome.event, outcome.delay / 1e6))
        settle(turns, msgspec.structs.replace(outcome, delay=0))

    monkeypatch.setattr(TurnLoop, "settle", settle_at_once)
    return seen


async def failed(app: App, call: Call[Any], **options: Any) -> tuple[Task[Any], BaseException]:
    """Run a call to its failure; return its task and the exception."""
    task = await app.submit(call, **options)
    with pytest.raises(BaseException) as caught:
        async with asyncio.timeout(20):
            await task
    await task.refresh()
    return task, caught.value


# -- when ---------------------------------------------------------------------------------------------------


async def test_the_waits_between_attempts_grow_exponentially_up_to_the_cap(
    app: App, settled: list[tuple[Event, float]]
) -> None:
    @app.task(retries=Retry(6, delay=0.5, factor=3, cap=30, jitter=False))
    async def fail() -> None:
        raise ValueError("no")

    async with app.worker():
        task, error = await failed(app, fail())

    waits = [delay for event, delay in settled if event is Event.RETRY]
    assert waits == [0.5, 1.5, 4.5, 13.5, 30, 30]
    assert settled[-1][0] is Event.FAIL
    assert (task.attempts, task.state) == (7, "failed")
    assert isinstance(error, ValueError)


async def test_with_jitter_each_wait_is_a_random_part_of_the_whole(
    app: App, settled: list[tuple[Event, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    units = cycle([0.0, 0.25, 0.5, 0.999])
    monkeypatch.setattr(executor, "random_unit", lambda: next(units))

    @app.task(retries=Retry(5, delay=1, factor=2, cap=6))
    async def fail() -> None:
        raise ValueError("no")

    async with app.worker():
        await failed(app, fail())

    waits = [delay for event, delay in settled if event is Event.RETRY]
    assert waits == pytest.approx([0 * 1, 0.25 * 2, 0.5 * 4, 0.999 * 6, 0 * 6])


async def test_retry_after_puts_the_call_off_and_costs_no_attempt(
    app: App, settled: list[tuple[Event, float]]
) -> None:
    attempts: list[int] = []

    @app.task
    async def limited() -> str:
        attempts.append(everloop.current().attempt)
        if len(attempts) < 4:
            raise RetryAfter(10 * len(attempts))
        return "through"

    async with app.worker():
        task = await app.submit(limited())
        assert await task == "through"

    assert settled == [(Event.RELEASE, 10), (Event.RELEASE, 20), (Event.RELEASE, 30), (Event.SUCCEED, 0)]
    assert attempts == [1, 1, 1, 1]
    assert task.attempts == 1


# -- after what ---------------------------------------------------------------------------------------------


class Refused(Exception):
    pass


class RefusedForEver(Refused):
    pass


@pytest.mark.parametrize(
    ("rule", "error", "attempts"),
    [
        (Retry(2, delay=0, never=[Refused]), Refused, 1),
        (Retry(2, delay=0, never=[Refused]), RefusedForEver, 1),
        (Retry(2, delay=0, never=[RefusedForEver]), Refused, 3),
        (Retry(2, delay=0, only=[Refused]), RefusedForEver, 3),
        (Retry(2, delay=0, only=[OSError]), Refused, 1),
        (Retry(2, delay=0, only=[OSError]), ConnectionResetError, 3),
        (Retry(2, delay=0, only=[Refused], never=[RefusedForEver]), RefusedForEver, 1),
        (2, SystemExit, 3),
        (0, ValueError, 1),
    ],
    ids=str,
)
async def test_the_rule_names_exceptions_that_end_the_call_or_do_not(
    app: App, settled: list[tuple[Event, float]], rule: int | Retry, error: type[BaseException], attempts: int
) -> None:
    @app.task(retries=rule)
    async def fail() -> None:
        raise error

    async with app.worker():
        task, _ = await failed(app, fail())

    assert task.attempts == attempts


async def test_each_function_has_a_rule_of_its_own(app: App) -> None:
    @app.task
    async def once() -> None:
        raise ValueError("no")

    @app.task(retries=AT_ONCE)
    async def four_times() -> None:
        raise ValueError("no")

    async with app.worker():
        (first, _), (second, _) = await asyncio.gather(failed(app, once()), failed(app, four_times()))

    assert (first.attempts, second.attempts) == (1, 4)


@pytest.mark.parametrize("places", range(5))
async def test_of_the_four_places_of_options_the_later_wins(
    app: App, settled: list[tuple[Event, float]], places: int
) -> None:
    async def fail() -> None:
        raise ValueError("no")

    function = app.task(retries=1)(fail) if places >= 1 else app.task(fail)
    call = function.options(retries=2)() if places >= 2 else function()
    if places >= 3:
        call = call.options(retries=3)

    async with app.worker():
        task, _ = await failed(app, call, **({"retries": 4} if places >= 4 else {}))

    assert task.attempts == 1 + places


async def test_an_option_in_one_place_leaves_the_others_of_earlier_places(app: App) -> None:
    @app.task(retries=AT_ONCE, timeout=30)
    async def fail() -> None:
        raise ValueError("no")

    async with app.worker():
        task, _ = await failed(app, fail().options(timeout=20, tags=["x"]))

    assert task.attempts == 4


# -- too long -----------------------------------------------------------------------------------------------


async def test_a_timeout_ends_an_attempt_with_a_timeout_error_and_the_rule_decides(app: App) -> None:
    seen: list[str | None] = []

    @app.task(timeout=0.02)
    async def sleep() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(everloop.current().stopping)

    async with app.worker():
        never, error = await failed(app, sleep(), retries=Retry(3, delay=0, never=[TimeoutError]))
        once, _ = await failed(app, sleep())
        again, _ = await failed(app, sleep(), retries=Retry(1, delay=0, only=[TimeoutError]))
        spared = await app.submit(sleep(), timeout=None)
        await app.submit(sleep(), timeout=0.03)
        assert not spared.done()
        spared.cancel()
        with pytest.raises(asyncio.CancelledError):
            await spared

    assert (never.attempts, once.attempts, again.attempts) == (1, 1, 2)
    assert isinstance(error, TimeoutError) and isinstance(error, TaskFailed)
    assert str(error) == "the attempt took longer than 0.02 s"
    assert seen[:4] == ["timeout"] * 4


async def test_the_total_timeout_ends_what_runs_and_no_repeat_begins_after_it(
    app: App, settled: list[tuple[Event, float]]
) -> None:
    @app.task(retries=Retry(9, delay=0), total_timeout=0.05)
    async def sleep() -> None:
        await asyncio.Event().wait()

    @app.task(retries=Retry(9, delay=3_600, jitter=False), total_timeout=60)
    async def fail() -> None:
        raise ValueError("no")

    async with app.worker():
        asleep, error = await failed(app, sleep())
        broken, first = await failed(app, fail())

    assert isinstance(error, TimeoutError)
    assert str(error) == "the call took longer than 0.05 s in all"
    assert isinstance(first, ValueError), "its own error, for the next attempt would have come too late"
    assert (asleep.attempts, broken.attempts) == (1, 1)


async def test_the_total_timeout_spans_all_attempts(app: App) -> None:
    @app.task(retries=Retry(10_000, delay=0), total_timeout=0.3)
    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("no")

    async with app.worker():
        task, error = await failed(app, fail())

    assert isinstance(error, ValueError | TimeoutError)
    assert 1 < task.attempts < 10_000


async def test_a_body_that_was_stopped_before_its_first_step_does_not_run(app: App) -> None:
    ran: list[int] = []

    @app.task(total_timeout=0.001)
    async def late() -> None:
        ran.append(1)

    async with app:
        task = await app.submit(late(), delay=0.05)
        async with app.worker():
            with pytest.raises(TimeoutError, match=r"longer than 0\.001 s in all"):
                await task

    assert ran == []


async def test_what_is_not_started_in_time_expires_and_never_runs(app: App) -> None:
    ran: list[int] = []

    @app.task
    async def late() -> None:
        ran.append(1)

    async with app.worker():
        task, error = await failed(app, late(), delay=60, expires=0)

    assert isinstance(error, TaskExpired) and isinstance(error, TimeoutError)
    assert (task.state, task.attempts, ran) == ("expired", 0, [])


async def test_what_has_started_does_not_expire(app: App) -> None:
    runs = 0

    @app.task(expires=0.2, retries=Retry(1, delay=0))
    async def slow() -> str:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.3)
        return "done"

    async with app.worker():
        assert await slow() == "done"

    assert runs == 1


# -- crashes ------------------------------------------------------------------------------------------------

FATAL = """
import os
from pathlib import Path
from everloop import App

app = App("fatal", "sqlite:///store.db", lease=1)

@app.task(crashes=1, retries=9)
async def die() -> None:
    with Path("died").open("a") as file:
        file.write("x")
    os._exit(9)

@app.task
async def live() -> str:
    return "alive"
"""


@pytest.mark.parametrize("crashes", [None, 0])
def test_a_call_that_ends_its_process_is_failed_after_so_many_crashes(
    workdir: Path, crashes: int | None
) -> None:
    (workdir / "fatal.py").write_text(FATAL)
    app = App("fatal", f"sqlite:///{workdir}/store.db", embed=False)

    @app.task(crashes=1, retries=9)
    async def die() -> None:
        raise AssertionError("it runs in the workers' process")

    async def main() -> Task[None]:
        async with app:
            task = await app.submit(die() if crashes is None else die().options(crashes=crashes))
            for n in range(3):
                with started("-m", "everloop", "worker", "fatal:app", folder=workdir, name=f"w{n}") as worker:
                    while worker.process.poll() is None and not task.done():
                        await asyncio.sleep(0.01)
                    assert task.done() or worker.process.poll() == 9
                if task.done():
                    break
            await task.refresh()
            return task

    task = asyncio.run(main())

    limit = 1 if crashes is None else crashes
    assert isinstance(task.exception(), TaskCrashed)
    assert (workdir / "died").read_text() == "x" * (limit + 1)
    assert (task.state, task.attempts) == ("failed", 0), "a crash is no attempt"


# -- what never ends a worker -------------------------------------------------------------------------------

ENDINGS = [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration, BaseException]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("where", ["loop", "thread", "with a resource"])
async def test_what_would_end_a_process_ends_the_call_and_not_its_worker(
    app: App, ending: type[BaseException], where: str
) -> None:
    async def body() -> None:
        if everloop.current().attempt == 1:
            raise ending("stop")

    def thread_body() -> None:
        if everloop.current().attempt == 1:
            raise ending("stop")

    async def body_with_session(session: object = everloop.Use(app.http)) -> None:
        await body()

    bodies: dict[str, Callable[..., Any]] = {
        "loop": body,
        "thread": thread_body,
        "with a resource": body_with_session,
    }
    end = app.task(name="end")(bodies[where])

    @app.task
    async def live() -> str:
        return "alive"

    async with app.worker():
        task, error = await failed(app, end())
        assert await live() == "alive"
        assert await end().options(retries=Retry(1, delay=0)) is None, "and a rule may repeat it"

    assert task.state == "failed"
    assert isinstance(error, TaskFailed) and isinstance(error, Exception)
    if ending is StopIteration:  # Python itself lets none out of a coroutine
        assert isinstance(error, RuntimeError) and "coroutine raised StopIteration" in str(error)
    else:
        assert (type(error), error.type_name) == (TaskFailed, ending.__name__)
        assert str(error) == f"{ending.__name__}: stop"


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_a_body_that_raises_cancelled_error_by_itself_is_cancelled(app: App, where: str) -> None:
    async def body() -> None:
        raise asyncio.CancelledError("by itself")

    def thread_body() -> None:
        raise asyncio.CancelledError("by itself")

    end = app.task(name="end", retries=AT_ONCE)(body if where == "loop" else thread_body)

    @app.task
    async def live() -> str:
        return "alive"

    async with app.worker():
        task, error = await failed(app, end())
        assert await live() == "alive"

    assert isinstance(error, asyncio.CancelledError)
    assert (task.state, task.attempts, task.cancelled()) == ("cancelled", 1, True)


async def test_bodies_in_threads_know_their_call_return_raise_and_are_repeated(app: App) -> None:
    @app.task(retries=AT_ONCE)
    def work(n: int) -> tuple[int, str]:
        current = everloop.current()
        if current.attempt == 1:
            raise ValueError("once more")
        return n * n, current.name

    async with app.worker():
        task = await app.submit(work(7))
        assert await task == (49, "work")

    assert task.attempts == 2


async def test_a_body_in_a_thread_sees_its_timeout_and_ends_when_it_likes(app: App) -> None:
    @app.task(timeout=0.02)
    def work() -> str:
        while everloop.current().stopping is None:
            os.sched_yield()
        return str(everloop.current().stopping)

    async with app.worker():
        assert await work() == "timeout", "it has had its effect"


# -- what crosses -------------------------------------------------------------------------------------------


class Declared(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code


class DeclaredHere(Exception):
    pass


class Undeclared(ValueError):
    pass


def raising(error: BaseException) -> None:
    raise error


ERRORS: dict[str, Callable[[], Exception]] = {
    "builtin": lambda: ValueError("not a number"),
    "key": lambda: KeyError("missing"),
    "os": lambda: FileNotFoundError(2, "No such file", "x.txt"),
    "app": lambda: Declared(7, "seven"),
    "task": lambda: DeclaredHere("here"),
    "undeclared": lambda: Undeclared("unknown"),
}


@pytest.mark.parametrize("kind", ERRORS)
async def test_an_exception_crosses_as_its_class_when_that_is_builtin_or_declared(
    store: str, kind: str
) -> None:
    app = App("test", store, raises=[Declared])
    original = ERRORS[kind]()

    @app.task(raises=[DeclaredHere])
    async def fail(kind: str) -> None:
        raising(ERRORS[kind]())

    async with app.worker():
        task, error = await failed(app, fail(kind))

    assert isinstance(error, TaskFailed)
    assert isinstance(error, type(original)) is (kind != "undeclared")
    assert error.type_name == type(original).__name__
    assert error.task_id == task.id
    assert str(original) in str(error)
    if isinstance(error, Declared):
        assert (error.code, error.args) == (7, (7, "seven"))
    if isinstance(error, OSError):
        assert (error.errno, error.filename) == (2, "x.txt")
    cause = str(error.__cause__)
    assert f'File "{__file__}"' in cause and "in raising" in cause, "where it was raised"
    assert "everloop/engine" not in cause, "and nothing of how it came to run"


async def test_a_class_that_another_task_declares_is_not_met(app: App) -> None:
    @app.task(raises=[DeclaredHere])
    async def declares() -> None:
        raise DeclaredHere("a")

    @app.task
    async def does_not() -> None:
        raise DeclaredHere("b")

    async with app.worker():
        _, met = await failed(app, declares())
        _, unmet = await failed(app, does_not())

    assert isinstance(met, DeclaredHere)
    assert type(unmet) is TaskFailed
    assert str(unmet) == "DeclaredHere: b"


async def test_groups_cross_member_by_member(store: str) -> None:
    app = App("test", store, raises=[Declared])

    async def at_once(error: Exception) -> None:
        raising(error)  # before the group hears of the first one, and cancels the others

    @app.task
    async def fail() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(at_once(ValueError("one")))
            group.create_task(at_once(Declared(2, "two")))
            group.create_task(at_once(Undeclared("three")))

    met: list[str] = []
    async with app.worker():
        task, error = await failed(app, fail())
    try:
        raise error
    except* Declared as group:
        met += [f"declared {e.code}" for e in group.exceptions if isinstance(e, Declared)]
    except* ValueError as group:
        met += [f"value {e}" for e in group.exceptions]
    except* TaskFailed as group:
        met += [f"other {e}" for e in group.exceptions]

    assert task.state == "failed"
    assert isinstance(error, TaskFailed) and isinstance(error, ExceptionGroup)
    assert set(met) <= {"declared 2", "value one", "other Undeclared: three"}
    assert {"declared 2", "value one"} <= set(met)
    assert "unhandled errors in a TaskGroup" in str(error)


async def test_the_exception_of_the_last_attempt_is_the_one_that_crosses(app: App) -> None:
    @app.task(retries=AT_ONCE)
    async def fail() -> None:
        raise ValueError(f"attempt {everloop.current().attempt}")

    async with app.worker():
        _, error = await failed(app, fail())

    assert str(error) == "attempt 4"


async def test_notes_and_chains_cross_as_text(app: App) -> None:
    @app.task
    async def fail() -> None:
        try:
            raising(KeyError("first"))
        except KeyError as error:
            later = ValueError("second")
            later.add_note("look at the first")
            raise later from error

    async with app.worker():
        _, error = await failed(app, fail())

    assert error.__notes__ == ["look at the first"]
    assert re.search(r"KeyError: 'first'.*direct cause.*ValueError: second", str(error.__cause__), re.DOTALL)


# -- what cannot be stored ----------------------------------------------------------------------------------


async def test_a_result_that_cannot_be_stored_fails_the_call_which_is_not_repeated(app: App) -> None:
    ran: list[int] = []

    @app.task(retries=AT_ONCE)
    async def handle() -> Any:
        ran.append(1)
        return {"rows": [1, sys.stdout]}

    async with app.worker():
        task, error = await failed(app, handle())

    assert isinstance(error, ResultNotStorable)
    assert "handle() ran, but its result cannot be stored" in str(error)
    assert "rows" in str(error), "the path"
    assert (task.state, len(ran)) == ("failed", 1)


async def test_an_argument_that_no_longer_decodes_fails_the_call_before_its_body(sqlite: str) -> None:
    old, new = App("test", sqlite), App("test", sqlite)
    ran: list[int] = []

    @old.task(name="work")
    async def old_work(n: str) -> None:
        raise AssertionError("the old code is gone")

    @new.task(name="work", retries=AT_ONCE)
    async def new_work(n: int) -> None:
        ran.append(n)

    async with old, new.worker():
        task = await old.submit(old_work("seven"))
        with pytest.raises(TaskFailed, match=r"work\b.*n\b"):
            await task
        await until(task.done)
        await task.refresh()

    assert (ran, task.attempts) == ([], 1)
