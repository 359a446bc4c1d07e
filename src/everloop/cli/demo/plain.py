"""The demo in one process: submit, run, and print each page as it completes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from everloop import _notices
from everloop._task import Task
from everloop.cli.demo.pages import Page, app, db, fetch, rows
from everloop.cli.demo.report import (
    explain,
    print_rows,
    print_table,
    print_times,
    read_lines,
    say_where,
    status_style,
)
from everloop.cli.demo.screen import Screen, size_text


async def fetch_all(urls: Sequence[str], names: Mapping[str, str], concurrency: int) -> bool:
    """Fetch the pages with an embedded worker; tell whether all succeeded."""
    async with app.worker(concurrency=concurrency):
        await make_table()
        calls = [fetch(url) for url in urls]
        name_of = {call.id: names[url] for call, url in zip(calls, urls, strict=True)}
        screen = Screen(len(urls))
        _notices.show = screen.tell
        async with screen.live():
            async for task in app.as_completed(calls):
                show(screen, name_of[task.id], task)
        total = screen.elapsed

        lines = await read_lines(list(name_of.items()))
        print_table(lines)
        print_times(lines, total)
        await print_rows(lines)
        say_where()
        return screen.failed == 0


async def make_table() -> None:
    """Make the table of rows where there is none."""
    async with db.transaction() as conn:
        await conn.run_sync(rows.metadata.create_all)


def show(screen: Screen, name: str, task: Task[Page]) -> None:
    """Print the line of a finished task."""
    if task.cancelled():
        screen.page(name, "-", "-", style="red", why="cancelled")
    elif (error := task.exception()) is not None:
        status, why = explain(error)
        screen.page(name, status, "-", style="red", why=why)
    else:
        page = task.result()
        screen.page(name, str(page.status), size_text(page.size), style=status_style(page))
