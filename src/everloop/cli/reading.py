"""The store behind an app or a URL, opened for one command."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from everloop._app import App
from everloop._core import keeping
from everloop._core.codec import Payloads
from everloop._core.errors import TaskNotFound
from everloop._core.text import without_password
from everloop._runner import fastest_loop
from everloop.cli.exits import STORE, Exit
from everloop.cli.target import load_app, looks_like_target
from everloop.store.protocol import Store
from everloop.store.sql.sql_store import SqlStore
from everloop.store.url import sqlite_path, store_from_url

T = TypeVar("T")
_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class Source:
    """Where a command reads: the store of an app, or the one that --db names."""

    app: App | None
    url: str

    @property
    def name(self) -> str | None:
        """The app's name, or None for every app in the store."""
        return None if self.app is None else self.app.name

    @property
    def payloads(self) -> Payloads:
        """What reads stored values: the app's codecs, or plain JSON."""
        return Payloads() if self.app is None else self.app.payloads

    @asynccontextmanager
    async def store(self) -> AsyncGenerator[Store]:
        """Open the store, and close it afterwards.

        Raises:
            Exit: There is none.
        """
        store = store_from_url(self.url)
        if self.app is None:
            await _check_exists(store, self.url)
        try:
            await store.open()
            yield store
        finally:
            await store.close()


def source_of(target: str | None, db: str | None) -> Source:
    """Return where to read: `--db`, or the app of `target`, or the one of this folder.

    Raises:
        click.UsageError: Neither names a store that another process can see.
    """
    if db is not None:
        if target is not None:
            raise click.UsageError(f"give an app or --db, not both ({target!r} and {db!r})")
        if db.startswith("memory:"):
            raise click.UsageError(f"{db} lives inside one process: there is nothing to read from here")
        return Source(None, db)
    app = load_app(target)
    return Source(app, shared_url(app))


def shared_url(app: App) -> str:
    """Return the URL of the app's store, when other processes can see it.

    Raises:
        click.UsageError: It lives in the memory of one process.
    """
    url = app.store_url
    if url.startswith("memory:"):
        raise click.UsageError(
            f"the app {app.name!r} keeps its calls in {url}, inside one process, where a command cannot see "
            f"them; give it a file: App({app.name!r}, 'sqlite:///{app.name}.db'), or leave the store out and "
            "set EVERLOOP_STORE"
        )
    return url


async def _check_exists(store: Store, url: str) -> None:
    """Refuse to make a store where only an existing one makes sense."""
    found = (await store.migrations())[0] if isinstance(store, SqlStore) else 1
    if not found:
        path = sqlite_path(url) if url.startswith("sqlite") else None
        if path is not None and not path.exists():
            raise Exit(STORE, f"there is no store at {path.absolute()} (from --db {url})")
        raise Exit(
            STORE,
            f"there is no store in {without_password(url)}: it has none of Everloop's tables. The first "
            "worker makes them, or `everloop migrate URL`; is it another database that you mean?",
        )


def split_target(arguments: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """Split a leading app off a list of ids: ids are no module names."""
    first, *rest = arguments
    if looks_like_target(first) or (rest and _MODULE.fullmatch(first)):
        return first, tuple(rest)
    return None, tuple(arguments)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine."""
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        return runner.run(main)


def source_options(command: _Decorated) -> _Decorated:
    """Add `--db`."""
    return click.option(
        "--db", metavar="URL", help="Read this store, such as sqlite:///shop.db, instead of an app's."
    )(command)


def output_option(command: _Decorated) -> _Decorated:
    """Add `-o`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "jsonl"]),
        default="table",
        show_default=True,
        help="For humans, as one JSON value, or as one JSON value per line.",
    )(command)


def not_found(id_: str) -> TaskNotFound:
    """Return the error for an id that no call has."""
    return keeping.not_found(id_, None)
