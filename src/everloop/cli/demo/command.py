"""`everloop demo`: parse, prepare, and choose which demo runs."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import click

from everloop._core.errors import MissingDependency
from everloop._core.text import without_password
from everloop.cli import exits
from everloop.cli.demo.screen import tell
from everloop.cli.demo.urls import check_url
from everloop.cli.group import Command
from everloop.cli.reading import run
from everloop.store.url import sqlite_path, store_from_url


@click.command(
    "demo",
    cls=Command,
    example="""
everloop demo
everloop demo https://example.org https://www.python.org --db sqlite:///pages.db
everloop demo --kill
""",
    codes=(exits.OK, exits.FAILED, exits.USAGE, exits.STORE, exits.INTERRUPTED),
)
@click.argument("urls", metavar="[URL]...", nargs=-1)
@click.option("--db", metavar="URL", help="Store calls and rows in this SQLite file: sqlite:///pages.db.")
@click.option(
    "--kill", is_flag=True, help="Kill the worker half-way, start another, and count what is there."
)
@click.option(
    "--concurrency", type=click.IntRange(1, 10_000), help="Pages at a time; by default 100, with --kill 8."
)
def command(urls: tuple[str, ...], *, db: str | None, kill: bool, concurrency: int | None) -> int:
    """Fetch pages at once as durable tasks, and insert a row for each in the task's own transaction.

    Without URLs the demo serves itself a small site, with slow, big, failing and flaky pages.
    """
    wanted = [check_url(url) for url in urls]
    _check_packages()
    # The app of the demo is a plain module; like any app it finds its store in the environment.
    os.environ["EVERLOOP_STORE"] = _store_url(db)
    ok = run(_demo(wanted, kill=kill, concurrency=concurrency))
    return exits.OK if ok else exits.FAILED


async def _demo(urls: Sequence[str], *, kill: bool, concurrency: int | None) -> bool:
    from everloop.cli.demo import kill as killing
    from everloop.cli.demo import plain

    async with AsyncExitStack() as stack:
        names: Mapping[str, str] = {url: url for url in urls}
        if not urls:
            from everloop.cli.demo import site

            pages = site.STEADY if kill else site.MIXED
            home = await stack.enter_async_context(site.serve(pages))
            names = {home + page.path: page.path for page in pages}
            tell(f"a site of {len(pages)} pages is served at {home}")
        try:
            ok = await (
                killing.fetch_all(list(names), names, concurrency or 8)
                if kill
                else plain.fetch_all(list(names), names, concurrency or 100)
            )
        except asyncio.CancelledError:
            tell(f"what is not fetched yet stays stored in {os.environ['EVERLOOP_STORE']}")
            if urls:
                tell("to go on: EVERLOOP_STORE=... everloop worker everloop.cli.demo.pages:app")
            raise
        # Some pages of the own site are made to fail; what the user asked for is not.
        return ok or not (urls or kill)


def _check_packages() -> None:
    missing = [name for name in ("sqlalchemy", "aiosqlite") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"the demo keeps its rows with {' and '.join(missing)}, which is not installed: "
            'pip install "everloop[sql]"'
        )


def _store_url(db: str | None) -> str:
    """Return the store's URL: the given one, or a fresh file's."""
    if db is None:
        db = f"sqlite:///{Path(tempfile.mkdtemp(prefix='everloop-')) / 'demo.db'}"
    elif not db.startswith("sqlite"):
        store_from_url(db)  # says what is wrong with an unknown one
        raise click.UsageError(
            f"the demo keeps its rows beside its calls, in an SQLite file: not {without_password(db)}, but "
            "sqlite:///demo.db"
        )
    url = f"sqlite:///{sqlite_path(db).absolute()}"
    tell(f"calls and rows are stored in {url}")
    return url
