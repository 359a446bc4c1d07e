"""What the demo says at the end: a table of the pages, the times, and what the database holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select

from everloop._core.calls import State
from everloop._core.errors import TaskFailed
from everloop._core.records import Snapshot
from everloop._core.text import first_line
from everloop.cli.demo.pages import Page, ServerError, app, db, rows
from everloop.cli.demo.screen import size_text
from everloop.cli.tables import Column, table
from everloop.cli.terminal import Style, say, width
from everloop.cli.times import span

_UNREACHABLE = re.compile(r"Cannot connect to host (?P<host>\S+?)(:\d+)? ssl:\S+ \[(?P<why>.*)\]")


@dataclass(frozen=True)
class Line:
    """One page and what became of its call."""

    page: str
    call: Snapshot
    value: Page | None
    error: BaseException | None

    @property
    def seconds(self) -> float:
        """How long the last attempt took."""
        ended, started = self.call.ended, self.call.started
        return (ended - started) / 1e6 if ended is not None and started is not None else 0.0

    @property
    def size(self) -> str:
        """The bytes, for humans."""
        return "-" if self.value is None else size_text(self.value.size)

    @property
    def status(self) -> str:
        """The HTTP status, also of a failure that had one."""
        return str(self.value.status) if self.value is not None else explain(self.error)[0]

    @property
    def why(self) -> str:
        """Why it failed."""
        return "" if self.value is not None else explain(self.error)[1]


@dataclass(frozen=True)
class Count:
    """What the table of rows holds of these calls."""

    rows: int
    missing: int
    doubled: int


async def read_lines(named: Sequence[tuple[str, str]]) -> list[Line]:
    """Read the calls behind (id, page) pairs, in order."""
    store = app.open_store()
    await store.open()
    try:
        calls = await store.get([id_ for id_, _ in named])
    finally:
        await store.close()
    lines: list[Line] = []
    for (_, page), call in zip(named, calls, strict=True):
        assert call is not None  # noqa: S101 - it was submitted, and nothing is ever lost
        value = app.read_value("fetch", call.value) if call.state is State.SUCCEEDED and call.value else None
        error = app.read_error("fetch", call.error, call.id) if call.error else None
        lines.append(Line(page, call, value, error))
    return lines


async def count_rows(lines: Sequence[Line]) -> Count:
    """Count the rows of these calls: each that succeeded has one."""
    wanted = {line.call.id for line in lines if line.value is not None}
    async with db.connection() as conn:
        found = await conn.execute(select(rows.c.call, func.count()).group_by(rows.c.call))
        counts = {call: number for call, number in found if call in wanted}
    return Count(
        rows=sum(counts.values()),
        missing=len(wanted - counts.keys()),
        doubled=sum(number - 1 for number in counts.values()),
    )


def print_table(lines: Sequence[Line]) -> None:
    """Print the table of pages."""
    columns: list[Column[Line]] = [
        Column("PAGE", lambda line: line.page, least=12),
        Column(
            "STATUS", lambda line: line.status, right=True, style=lambda line: (status_style(line.value),)
        ),
        Column("BYTES", lambda line: line.size, right=True),
        Column("TIME", lambda line: span(line.seconds), right=True),
        Column("ATTEMPTS", lambda line: str(line.call.attempt), right=True),
        Column(
            "CRASHES", lambda line: str(line.call.crashes) if line.call.crashes else "", right=True, rank=2
        ),
        Column("WHY", lambda line: line.why, least=12, rank=1, style=lambda _: ("red",)),
    ]
    print("\n" + "\n".join(table(lines, columns, width())))


def print_times(lines: Sequence[Line], total: float) -> None:
    """Compare the time it took with the sum of the times."""
    each = sum(line.seconds for line in lines)
    times = f" ({each / total:.1f} times)" if each > total > 0 else ""
    print(f"\n{pages(len(lines))} in {span(total)}; their times add up to {span(each)}{times}")
    if failed := sum(line.value is None for line in lines):
        print(f"{pages(failed)} failed, after the attempts shown")


async def print_rows(lines: Sequence[Line]) -> Count:
    """Tell what the table of rows holds of these calls."""
    count = await count_rows(lines)
    plural = "" if count.rows == 1 else "s"
    print(f"{count.rows} row{plural} stored, each in the transaction that ended its call")
    return count


def say_where() -> None:
    """Tell where to look closer."""
    say(f"\nLook closer: everloop ls --db {app.store_url}")


def explain(error: BaseException | None) -> tuple[str, str]:
    """Return the HTTP status of a failure, if it had one, and its reason in plain words."""
    if error is None:
        return "-", "cancelled"
    if isinstance(error, ServerError):
        status, text = error.args
        return str(status), str(text)
    if found := _UNREACHABLE.search(str(error)):
        return "-", f"cannot reach {found['host']}: {found['why']}"
    name = error.type_name if isinstance(error, TaskFailed) else type(error).__name__
    return "-", first_line(f"{name}: {error}".rstrip(": "))


def status_style(page: Page | None) -> Style:
    """Return the colour of a page's status."""
    if page is None:
        return "red"
    return "green" if page.status < 400 else "yellow"


def pages(count: int) -> str:
    return f"{count} page{'' if count == 1 else 's'}"
