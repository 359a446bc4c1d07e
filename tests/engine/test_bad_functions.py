"""What cannot be a task function, a resource or an app is refused where it is declared, with what to do."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from everloop import App, ConfigError, FunctionError, OptionError, Retry, RetryAfter, StoreURLError, Use

#: Wrong on purpose: a checker is not asked about these.
AnyApp: Any = App
AnyRetry: Any = Retry
AnyUse: Any = Use


async def plain(x: int = 0) -> int:
    return x


def numbers() -> Iterator[int]:
    yield 1


async def later_numbers() -> AsyncIterator[int]:
    yield 1


class Shop:
    async def sell(self) -> None: ...

    @classmethod
    async def open(cls) -> None: ...


def app() -> Any:
    return App("shop", "memory://")


def decorated() -> Any:
    return app().task(plain)


def twice() -> None:
    shop = app()
    shop.task(name="plain")(plain)

    async def other() -> None: ...

    shop.task(name="plain")(other)


def made_by_a_factory() -> None:
    shop = app()

    def make(number: int) -> None:
        @shop.task
        async def job() -> int:
            return number

    make(1)
    make(2)


GENERATOR = "is a generator: a call has one result. Return a list, or submit a call per item"
METHOD = "is a method: a worker has no object to call it on. Move it to module level and pass what it needs"
NO_FUNCTION = "@app.task decorates a function (`async def` or `def`), not "


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: app().task(Shop.sell), METHOD),
        (lambda: app().task(Shop().sell), NO_FUNCTION + "<bound method Shop.sell"),
        (lambda: app().task(Shop.open), NO_FUNCTION + "<bound method Shop.open"),
        (lambda: app().task(lambda: 1), "a lambda has no name under which a worker could find it ("),
        (lambda: app().task(numbers), GENERATOR),
        (lambda: app().task(later_numbers), "later_numbers() at "),
        (lambda: app().task(Shop), NO_FUNCTION + "<class "),
        (lambda: app().task(len), NO_FUNCTION + "<built-in function len>"),
        (lambda: app().task(functools.partial(plain, 1)), NO_FUNCTION + "functools.partial("),
        (lambda: app().task("mail"), NO_FUNCTION + "'mail'"),
        (
            lambda: app().task(decorated()),
            "<everloop.TaskFunction plain> is a task function already; decorate the plain function once",
        ),
        (twice, "the app 'shop' has a task function 'plain' already ("),
        (made_by_a_factory, "the app 'shop' has a task function 'job' already ("),
    ],
)
def test_what_cannot_be_a_task_function_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(FunctionError) as caught:
        make()

    assert message in str(caught.value)
    assert isinstance(caught.value, ConfigError)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: app().task(run="gpu")(plain),  # type: ignore[call-overload]  # the mistake
            "`run` is 'loop' (for `async def`), 'thread' (for `def`) or 'process' (for either), not 'gpu'",
        ),
        (
            lambda: app().task(run="thread")(plain),
            "run='thread' does not fit plain(): an `async def` runs on the loop, a `def` in a thread",
        ),
        (
            lambda: app().task(name="a,b")(plain),
            "`name` is a printable text of 1 to 200 characters without commas, not 'a,b'",
        ),
        (
            lambda: app().task(aliases="old")(plain),
            "`aliases` is a list of texts, not 'old'; write ['old']",
        ),
        (
            lambda: app().task(raises=KeyError)(plain),
            "`raises` is a list of exception classes, not <class 'KeyError'>",
        ),
        (lambda: app().task(raises=["KeyError"])(plain), "`raises` lists exception classes, not 'KeyError'"),
        (
            lambda: AnyApp("__main__"),
            "App(__name__) is '__main__' where its file is run, and the name of the ",
        ),
        (lambda: AnyApp(5), "`App(name)` is a printable text of 1 to 200 characters without commas, not 5"),
        (lambda: AnyApp("x", imports="mod"), "`App(imports=)` is a list of texts, not 'mod'; write ['mod']"),
        (
            lambda: AnyApp("x", raises=KeyError),
            "`App(raises=)` is a list of exception classes, not <class 'KeyError'>",
        ),
        (
            lambda: AnyApp("x", lease=0),
            "`App(lease=)` is 0 s; it may be 0.5 s to 316224000 s (ten years)",
        ),
        (
            lambda: AnyApp("x", stall_limit=0.5),
            "`App(stall_limit=)` is 0.5 s; it may be 1 s to 316224000 s (ten years)",
        ),
        (
            lambda: AnyApp("x", stall_limit="never"),
            "`App(stall_limit=)` is a number of seconds or a timedelta, not 'never'",
        ),
        (
            lambda: AnyApp("x", cancel_wait="1"),
            "`App(cancel_wait=)` is a number of seconds or a timedelta, not '1'",
        ),
        (
            lambda: AnyRetry(1, factor=math.inf),
            "`Retry(factor=)` is at least 1, not inf (a number up to 1000000)",
        ),
        (lambda: AnyRetry(1, factor="2"), "`Retry(factor=)` is at least 1, not '2' (a number up to 1000000)"),
        (
            lambda: AnyRetry(1, never=KeyError),
            "`Retry(never=)` is a list of exception classes, not <class 'KeyError'>",
        ),
        (
            lambda: RetryAfter(-5),
            "`RetryAfter(delay)` is -5 s; it may be 0 s to 316224000 s (ten years)",
        ),
        (
            lambda: RetryAfter(math.nan),
            "`RetryAfter(delay)` is nan s; it may be 0 s to 316224000 s (ten years)",
        ),
        (
            lambda: AnyUse(app().http()),
            "pass what makes it, without calling it: Use(http), not Use(http())",
        ),
        (lambda: AnyUse(5), "it has to be callable, and to return an asynchronous context manager"),
    ],
)
def test_a_wrong_declaration_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        make()

    assert message in str(caught.value)


def test_a_refused_function_leaves_the_app_as_it_was() -> None:
    shop = app()
    with pytest.raises(FunctionError):
        shop.task(numbers)
    with pytest.raises(OptionError):
        shop.task(run="thread")(plain)

    assert dict(shop.functions) == {}
    assert shop.run(shop.task(plain)(3)) == 3


def test_a_resource_takes_no_parameters() -> None:
    async def table(_name: str) -> AsyncIterator[int]:
        yield 1

    with pytest.raises(FunctionError) as caught:
        app().resource(table)

    assert str(caught.value) == (
        "the resource 'table' takes parameters, but it is opened without any: let it read its settings "
        "itself, or enter another resource in it with `async with other() as it:`"
    )


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (
            Path("app.db"),
            f"a store is given by a URL, not by {Path('app.db')!r}; write 'sqlite:///app.db'",
        ),
        (5, "a store is given by a URL such as 'sqlite:///app.db', not by 5"),
    ],
)
def test_a_store_that_is_no_url_is_refused_with_the_app(store: Any, message: str) -> None:
    with pytest.raises(StoreURLError) as caught:
        App("shop", store)

    assert str(caught.value) == message
