"""Wrong arguments, results and options: what the message says, and that nothing else suffers."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from typing import Any, cast

import pytest

import everloop
from everloop import App, ArgumentError, Key, NotStorable, OptionError, ResultNotStorable, TaskFailed
from tests.engine.conftest import make
from tests.helpers.waiting import until

STORED = " has no stored form; pass str, int, float, bool, None, list, dict, tuple"
MEGABYTES = "x" * 2_000_000
REFERENCE = (
    "cannot be stored: 1.91 MiB, and the limit is 1 MiB. Store the data elsewhere and pass a reference (a "
    "path, a URL, a row's id), or let App(codecs=[...]) compress or off-load it"
)


class Thing:
    def __repr__(self) -> str:
        return "Thing()"


async def add(x: int, y: int = 0) -> int:
    return x + y


async def echo(value: Any, *, mode: str = "") -> Any:
    return value


# -- arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "first"),
    [
        ((), {}, "add() is missing 1 required argument: 'x'"),
        ((1, 2, 3), {}, "add() takes 1 to 2 positional arguments but 3 were given"),
        ((1,), {"x": 2}, "add() got multiple values for argument 'x'"),
        ((1,), {"yy": 2}, "add() got an unexpected keyword argument 'yy'; did you mean 'y'?"),
        (("1",), {}, "add(x=): expected `int`, got `str` ('1')"),
        ((1,), {"y": None}, "add(y=): expected `int`, got `NoneType` (None)"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(args: Any, kwargs: Any, first: str) -> None:
    function: Any = App("test", "memory://").task(add)

    with pytest.raises(ArgumentError) as caught:
        function(*args, **kwargs)

    assert str(caught.value).partition("\n")[0] == first
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("args", "kwargs", "first"),
    [
        ((Thing(),), {}, "echo(): `value` cannot be stored: a `Thing` (Thing())" + STORED),
        (({"rows": [1, Thing()]},), {}, "echo(): `value.rows[1]` cannot be stored: a `Thing` (Thing())"),
        ((MEGABYTES,), {}, "the arguments of echo() " + REFERENCE),
    ],
)
def test_arguments_that_cannot_be_stored_are_refused_at_the_call(args: Any, kwargs: Any, first: str) -> None:
    function: Any = App("test", "memory://").task(echo)

    with pytest.raises(NotStorable) as caught:
        function(*args, **kwargs)

    assert str(caught.value).startswith(first)


# -- results ------------------------------------------------------------------------------------------------


async def test_a_result_that_cannot_be_stored_fails_its_call_once_and_no_other(app: App) -> None:
    ran: list[str] = []

    @app.task(retries=3)
    async def give(what: str) -> Any:
        ran.append(what)
        return {"thing": {"rows": [1, Thing()]}, "long": MEGABYTES, "good": "good"}[what]

    @app.task(retries=3)
    async def number() -> int:
        return cast("int", "three")

    async with app.worker():
        calls: list[Any] = [give("thing"), give("long"), give("good"), number()]
        thing, long, good, typed = await asyncio.gather(*calls, return_exceptions=True)

    assert good == "good"
    for error in (thing, long, typed):
        assert isinstance(error, ResultNotStorable)
    ran_but = "() ran, but its result cannot be stored: "
    assert str(thing).startswith(f"give{ran_but}`result.rows[1]` cannot be stored: a `Thing` (Thing())")
    assert str(long) == f"give{ran_but}the result of give() {REFERENCE}"
    assert str(typed) == f"number{ran_but}`result` cannot be stored: expected `int`, got `str` ('three')"
    assert sorted(ran) == ["good", "long", "thing"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
async def test_an_exit_in_a_task_ends_the_task_and_not_its_worker(app: App, error: BaseException) -> None:
    @app.task
    async def leave() -> None:
        raise error

    @app.task
    def leave_thread() -> None:
        raise error

    echoed = app.task(echo)
    async with app.worker():
        for call in (leave(), leave_thread()):
            with pytest.raises(TaskFailed) as caught:
                await call
            assert type(caught.value) is TaskFailed
            assert caught.value.type_name.rpartition(".")[2] == type(error).__name__
            assert str(caught.value).startswith(type(error).__name__)
        assert await echoed("alive") == "alive"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("half",), "`progress(done)` is a number, not 'half'"),
        ((math.nan,), "`progress(done)` is a number, not nan"),
        ((1, "2"), "`progress(total)` is a number, not '2'"),
        ((1, 2, 3), "`progress(note)` is a text, not 3"),
    ],
)
async def test_wrong_progress_fails_the_task_that_reports_it(app: App, arguments: Any, message: str) -> None:
    @app.task
    async def work() -> None:
        everloop.current().progress(*arguments)

    echoed = app.task(echo)
    async with app.worker():
        with pytest.raises(OptionError) as caught:
            await work()
        assert await echoed("alive") == "alive"

    assert message in str(caught.value)


# -- options ------------------------------------------------------------------------------------------------

NAIVE = (
    "`at` is the naive datetime 2030-01-01T00:00:00: it does not say of which time zone. Write "
    "datetime.now(UTC) + ..., or value.replace(tzinfo=...)"
)
NOT_DURABLE = (
    "`on_done` takes task functions (or functools.partial of one), not <built-in function print>: it runs "
    "on a worker, after this process may have died. For a function of this process use "
    "task.add_done_callback(...)"
)
OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"priority": 101}, "`priority` is a whole number, from -100 to 100, not 101"),
    ({"queue": ""}, "`queue` is a printable text of 1 to 200 characters without commas, not ''"),
    ({"delay": -1}, "`delay` is -1 s; it may be 0 s to 316224000 s (ten years)"),
    ({"delay": math.nan}, "`delay` is nan s; it may be 0 s to 316224000 s (ten years)"),
    ({"delay": 10**400}, "`delay` is 1e+300 s; it may be 0 s to 316224000 s (ten years)"),
    (
        {"at": datetime(2030, 1, 1)},
        NAIVE,
    ),
    ({"at": datetime(1960, 1, 1, tzinfo=UTC)}, "`at` is 1960-01-01T00:00:00+00:00; it may be from 1970 to"),
    ({"expires": "1"}, "`expires` is a number of seconds or a timedelta, not '1'"),
    ({"timeout": 0}, "`timeout` is 0 s; it may be 0.001 s to 316224000 s (ten years)"),
    ({"total_timeout": -1}, "`total_timeout` is -1 s; it may be 0.001 s to 316224000 s (ten years)"),
    ({"retries": -1}, "`retries` is a number of repeats (0 or more) or a `Retry`, not -1"),
    ({"crashes": 1001}, "`crashes` is a whole number, from 0 to 1000, not 1001"),
    ({"key": 5}, "`key` is a text or a `Key`, not 5"),
    ({"key": "\ud800"}, "`Key(value)` is a text of 1 to 255 characters, not '\\ud800'"),
    ({"tags": "new"}, "`tags` is a list of texts, not 'new'; write tags=['new']"),
    ({"tags": ["\ud800"]}, "a tag is a text of 1 to 100 characters, not '\\ud800'"),
    (
        {"on_done": print},
        NOT_DURABLE,
    ),
    ({"id": "7"}, "`id` is a UUID such as '0198c0de-0000-7000-8000-000000000001', not '7'"),
    ({"fresh": "no"}, "`fresh` is True or False, not 'no'"),
    ({"delay": 1, "at": datetime(2030, 1, 1, tzinfo=UTC)}, "give `delay` or `at`, not both"),
    ({"prioritty": 1}, "unknown option `prioritty` for "),
    ({"prioritty": 1}, "; did you mean 'priority'?; the options are queue, priority, delay, at, expires,"),
]


async def on_the_decorator(app: Any, _function: Any, _call: Any, options: dict[str, Any]) -> None:
    app.task(name="wrong", **options)(echo)


async def on_the_function(_app: Any, function: Any, _call: Any, options: dict[str, Any]) -> None:
    function.options(**options)


async def on_the_call(_app: Any, _function: Any, call: Any, options: dict[str, Any]) -> None:
    call.options(**options)


async def on_submit(app: Any, _function: Any, call: Any, options: dict[str, Any]) -> None:
    await app.submit(call, **options)


PLACES: dict[str, Any] = {
    "decorator": on_the_decorator,
    "function": on_the_function,
    "call": on_the_call,
    "submit": on_submit,
}


@pytest.mark.parametrize(("options", "message"), OPTIONS)
@pytest.mark.parametrize("place", list(PLACES))
async def test_a_wrong_option_is_refused_at_each_place(
    place: str, options: dict[str, Any], message: str
) -> None:
    app: Any = make("memory://")
    good = app.task(name="good")(echo)
    call = good("kept")
    async with app:
        with pytest.raises(OptionError) as caught:
            await PLACES[place](app, good, call, options)

        assert message in str(caught.value)
        assert sum((await app.counts()).values()) == 0
        await app.submit(call)  # it was refused, not used up
        assert (await app.counts())["ready"] == 1


def test_no_function_has_an_id() -> None:
    app: Any = make("memory://")
    with pytest.raises(OptionError) as caught:
        app.task(id="0198c0de-0000-7000-8000-000000000001")(echo)
    assert str(caught.value) == (
        "@app.task on echo(): `id` is one call's, so it is given to that: echo(...).options(id=...)"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"concurrency": 0}, "`concurrency` is a whole number, 1 or more, not 0"),
        ({"queues": "mail"}, "`queues` is a list of texts, not 'mail'; write ['mail']"),
        (
            {"queues": ["a,b"]},
            "`queues` is a printable text of 1 to 200 characters without commas",
        ),
        ({"grace": -1}, "`grace` is -1 s; it may be 0 s to 316224000 s (ten years)"),
    ],
)
async def test_a_wrong_option_of_a_worker_is_refused(app: App, arguments: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        async with app.worker(**arguments):
            pass

    assert message in str(caught.value)


async def test_a_key_that_is_taken_and_an_id_that_is_another_calls_lose_nothing(store: str) -> None:
    app = make(store)
    echoed = app.task(echo)
    async with app:
        first = await app.submit(echoed(1), key="k")
        with pytest.raises(everloop.KeyConflict) as key:
            await app.submit(echoed(2), key=Key("k", on_conflict="raise"))
        with pytest.raises(everloop.IdConflict) as id_:
            await app.submit(echoed(3), id=first.id)
        assert str(key.value) == f"a call of 'echo' with this key exists: task {first.id}"
        assert str(id_.value) == (
            f"the id {first.id!r} belongs to another call (another function or other arguments than this "
            "'echo')"
        )
        async with app.worker():
            await until(first.done)
        assert first.result() == 1
        assert (await app.counts())["succeeded"] == 1
