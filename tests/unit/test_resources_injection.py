"""`Use(scope)`: what may stand there, how the scopes of a body are entered and left, and what that holds."""

# ruff: noqa: PT012 - a scope raises at the end of its block, so the whole block is expected to

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from everloop._core.errors import FunctionError, OptionError
from everloop.resources.database import Database
from everloop.resources.held import held
from everloop.resources.injection import Injected, Scopes, Use, injected
from everloop.resources.resource import ResourcePool
from tests.helpers.databases import COUNT, INSERT, database, names


async def shared() -> AsyncIterator[str]:
    yield "shared"


@asynccontextmanager
async def scope() -> AsyncIterator[str]:
    yield "entered"


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with database(tmp_path / "shop.db", own=True) as opened:
        yield opened


# -- declaring -------------------------------------------------------------------------------------------


def test_the_markers_of_a_function_are_found() -> None:
    resource = ResourcePool().declare(shared)

    async def body(
        url: str, *, session: str = Use(resource), retries: int = 3, conn: str = Use(scope)
    ) -> None: ...

    found = injected(body)

    assert list(found) == ["session", "conn"]
    assert repr(found) == "{'session': Use(shared), 'conn': Use(scope)}"


@pytest.mark.parametrize(
    ("given", "what_to_do"),
    [
        (scope(), "pass what makes it, without calling it: Use(http), not Use(http())"),
        (shared, "decorate that function with @app.resource, to share it, or with @asynccontextmanager"),
        (3, "it has to be callable, and to return an asynchronous context manager"),
        (
            asyncio.sleep,
            "it has to return an asynchronous context manager (@contextlib.asynccontextmanager makes one)",
        ),
        (
            asynccontextmanager(lambda url: shared()),
            "it is called without arguments, but requires url; functools.partial can give them",
        ),
        (
            Database(ResourcePool(), None, store_url=str),
            "choose a scope of it: Use(db.connection), Use(db.transaction) or Use(db.session)",
        ),
    ],
)
def test_what_is_no_scope_is_refused_at_once(given: Any, what_to_do: str) -> None:
    with pytest.raises(OptionError) as caught:
        Use(given)

    assert str(caught.value) == f"Use() takes a resource or another scope, not {given!r:.100}: {what_to_do}"


def test_anything_that_is_called_without_arguments_may_be_a_scope() -> None:
    async def optional(url: str = "", *rest: str, **more: str) -> None: ...

    def plain(url: str = "", *rest: str, **more: str) -> AbstractAsyncContextManager[str]:
        return scope()

    for each in (plain, partial(plain, "x"), scope, ResourcePool().declare(shared)):
        assert isinstance(Use(each), Injected)


def test_a_parameter_that_cannot_be_given_by_name_is_refused() -> None:
    async def body(session: str = Use(scope), /) -> None: ...

    with pytest.raises(FunctionError) as caught:
        injected(body)
    assert str(caught.value).endswith(
        "body() is filled in by name, but stands before the `/`; move it behind"
    ) and str(caught.value).startswith("the parameter 'session' of test_a_parameter")


def test_a_marker_that_is_used_says_what_it_is() -> None:
    marker: Any = Use(scope)

    with pytest.raises(AttributeError) as caught:
        marker.get("https://example.org")
    assert str(caught.value) == (
        "Use(scope) has no 'get': it stands for what Everloop fills in when it runs the function. Await the "
        "call, or run the body here with `await function.plain(...)`"
    )


# -- entering and leaving --------------------------------------------------------------------------------


def note(log: list[str], name: str) -> Injected:
    @asynccontextmanager
    async def noting() -> AsyncIterator[str]:
        log.append(f"enter {name}")
        try:
            yield name
        except BaseException as error:
            log.append(f"{name} sees {error!r}")
            raise
        finally:
            log.append(f"leave {name}")

    return Injected(noting)


async def test_scopes_are_entered_in_order_and_left_in_reverse() -> None:
    log: list[str] = []
    async with Scopes.entered(
        {"a": note(log, "a"), "b": note(log, "b"), "c": note(log, "c")}, {"b": 2}
    ) as scopes:
        assert scopes.values == {"a": "a", "c": "c"}

    assert log == ["enter a", "enter c", "leave c", "leave a"]


async def test_they_see_the_failure_of_the_body_and_cannot_hide_it() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def hiding() -> AsyncIterator[None]:
        try:
            yield
        except KeyError:
            log.append("hidden")

    with pytest.raises(KeyError):
        async with Scopes.entered({"a": note(log, "a"), "b": Injected(hiding)}, {}):
            raise KeyError("x")

    assert log == ["enter a", "hidden", "leave a"]


async def test_a_scope_that_fails_to_open_leaves_those_before_it() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def failing() -> AsyncIterator[None]:
        raise OSError("refused")
        yield

    with pytest.raises(OSError):
        async with Scopes.entered({"a": note(log, "a"), "b": Injected(failing)}, {}):
            pytest.fail("never entered")

    assert log == ["enter a", "a sees OSError('refused')", "leave a"]


async def test_a_scope_that_gives_something_else_is_named() -> None:
    def wrong() -> Any:
        return 3

    with pytest.raises(OptionError) as caught:
        async with Scopes.entered({"conn": Injected(wrong)}, {}):
            pytest.fail("never entered")
    assert "the parameter 'conn': Use(" in str(caught.value)
    assert "gave 3, which is no asynchronous context manager (it has no __aenter__ and __aexit__)" in str(
        caught.value
    )


async def test_an_injected_transaction_commits_with_the_body_or_rolls_back(
    db: Database, tmp_path: Path
) -> None:
    parameters = {"conn": Injected(db.transaction)}
    async with Scopes.entered(parameters, {}) as scopes:
        await scopes.values["conn"].execute(INSERT, {"name": "kept"})
    with pytest.raises(KeyError):
        async with Scopes.entered(parameters, {}) as scopes:
            await scopes.values["conn"].execute(INSERT, {"name": "undone"})
            raise KeyError

    assert names(tmp_path / "shop.db") == ["kept"]


# -- the store's own transaction -------------------------------------------------------------------------


async def test_the_own_transaction_is_the_one_that_has_begun(db: Database, tmp_path: Path) -> None:
    other = Database(db._resources, f"sqlite:///{tmp_path}/other.db", store_url=lambda: db.url)
    parameters = {
        "reader": Injected(db.connection),
        "elsewhere": Injected(other.transaction),
        "session": Injected(db.session),
        "conn": Injected(db.transaction),
    }
    async with Scopes.entered(parameters, {}) as scopes:
        await scopes.values["reader"].execute(COUNT)
        await scopes.values["elsewhere"].execute(text("create table pages (name text)"))
        assert scopes.own_transaction() is None
        await scopes.values["conn"].execute(INSERT, {"name": "effect"})
        own = scopes.own_transaction()
        assert own is not None

        async def settle(connection: AsyncConnection) -> None:
            await connection.execute(INSERT, {"name": "outcome"})

        own.before_commit = settle

    assert names(tmp_path / "shop.db") == ["effect", "outcome"]


async def test_one_that_was_rolled_back_inside_is_none(db: Database) -> None:
    async with Scopes.entered({"conn": Injected(db.transaction)}, {}) as scopes:
        await scopes.values["conn"].execute(INSERT, {"name": "undone"})
        await scopes.values["conn"].rollback()

        assert scopes.own_transaction() is None


async def test_a_session_settles_in_its_transaction_too(db: Database, tmp_path: Path) -> None:
    async with Scopes.entered({"session": Injected(db.session)}, {}) as scopes:
        session = scopes.values["session"]
        assert isinstance(session, AsyncSession)
        assert scopes.own_transaction() is None
        await session.execute(INSERT, {"name": "effect"})
        own = scopes.own_transaction()
        assert own is not None

        async def settle(connection: AsyncConnection) -> None:
            await connection.execute(INSERT, {"name": "outcome"})

        own.before_commit = settle

    assert names(tmp_path / "shop.db") == ["effect", "outcome"]


# -- what is held ----------------------------------------------------------------------------------------


async def test_nothing_is_held_before_the_first_statement_nor_after_the_block(db: Database) -> None:
    for make in (db.connection, db.transaction, db.session):
        async with make() as conn:
            assert held() is None
            await conn.execute(COUNT)
            assert held() is not None
        assert held() is None


async def test_reading_holds_a_connection_and_writing_a_transaction_of_the_store(db: Database) -> None:
    url = db.url
    async with db.connection() as conn:
        await conn.execute(COUNT)
        assert str(held()).startswith(f"a connection on {url} (since {__file__}:")
        assert held(own_write=True) is None
        await conn.execute(INSERT, {"name": "x"})
        assert str(held(own_write=True)).startswith(f"a write transaction on {url} (since {__file__}:")
        await conn.commit()
        assert str(held()).startswith("a connection on")
        assert held(own_write=True) is None


async def test_a_write_on_another_file_is_no_write_on_the_store(tmp_path: Path) -> None:
    async with database(tmp_path / "other.db") as db, db.transaction() as conn:
        await conn.execute(COUNT)

        assert held() is not None
        assert held(own_write=True) is None


async def test_a_session_that_has_committed_holds_nothing(db: Database) -> None:
    async with db.session() as session:
        await session.execute(INSERT, {"name": "x"})
        assert held(own_write=True) is not None
        await session.commit()
        assert held() is None


async def test_what_is_held_for_a_parameter_is_named(db: Database) -> None:
    async with Scopes.entered({"conn": Injected(db.transaction)}, {}) as scopes:
        await scopes.values["conn"].execute(COUNT)

        assert str(held()).startswith(
            f"a write transaction on {db.url} (the parameter 'conn', since {__file__}:"
        )


async def test_tasks_that_are_started_inside_see_what_is_held_until_it_is_over(db: Database) -> None:
    over = asyncio.Event()
    seen: list[bool] = []

    async def inside() -> None:
        seen.append(held() is not None)
        await over.wait()
        seen.append(held() is not None)

    async with db.transaction() as conn:
        task = asyncio.create_task(inside())
        await conn.execute(COUNT)
        await asyncio.sleep(0)
    over.set()
    await task

    assert seen == [True, False]


async def test_the_innermost_that_holds_is_named(db: Database) -> None:
    async with db.connection() as outer, db.session() as inner:
        await outer.execute(COUNT)
        assert str(held()).startswith("a connection on")
        await inner.execute(COUNT)
        assert str(held()).startswith("a write transaction on")
