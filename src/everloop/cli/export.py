"""`everloop export`: finished calls with their histories, one JSON value per line."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

import click
import msgspec

from everloop._core.calls import FINAL
from everloop._core.clock import instant
from everloop._core.records import CallFilter, Snapshot
from everloop.cli import exits
from everloop.cli.exits import FAILED, Exit
from everloop.cli.group import Command
from everloop.cli.logs import record_as_json
from everloop.cli.ls import read_state
from everloop.cli.reading import Source, run, source_of, source_options
from everloop.cli.terminal import say
from everloop.cli.view import details, dumps, history
from everloop.store.protocol import Store

#: Calls that are read at a time.
PAGE = 500


@click.command(
    "export",
    cls=Command,
    example="""
everloop export shop:app --since 2030-01-01T00:00Z > calls.jsonl
everloop export --db sqlite:///shop.db --state failed --logs | jq .reason
""",
    codes=(exits.OK, exits.FAILED, exits.USAGE, exits.STORE),
)
@click.argument("target", metavar="[APP]", required=False)
@click.option(
    "--state",
    metavar="STATE",
    multiple=True,
    help="Only these states; by default those that are final.",
)
@click.option("--queue", metavar="NAME", help="Only this queue.")
@click.option("--name", metavar="NAME", help="Only this task function.")
@click.option("--tag", metavar="TEXT", help="Only calls with this tag.")
@click.option("--since", metavar="TIME", help="Only calls that were submitted at or after this time.")
@click.option("--until", metavar="TIME", help="Only calls that were submitted before this time.")
@click.option("--logs", is_flag=True, help="With what their runs have logged.")
@source_options
def command(  # noqa: PLR0913 - one per option
    target: str | None,
    *,
    state: tuple[str, ...],
    queue: str | None,
    name: str | None,
    tag: str | None,
    since: str | None,
    until: str | None,
    logs: bool,
    db: str | None,
) -> None:
    """Print finished calls and how each of their runs ended, newest first, one JSON object per line.

    They are read page by page: a million calls take no more memory than a thousand.
    """
    states = tuple(read_state(each) for text in state for each in text.split(","))
    source = source_of(target, db)
    wanted = CallFilter(
        app=source.name,
        states=states or tuple(sorted(FINAL)),
        queue=queue,
        fn=name,
        tag=tag,
        limit=PAGE,
    )
    count = run(_export(source, wanted, _time("--since", since), _time("--until", until), logs=logs))
    say(f"everloop: exported {count:,} call{'' if count == 1 else 's'}")


async def _export(
    source: Source, wanted: CallFilter, since: int | None, until: int | None, *, logs: bool
) -> int:
    count = 0
    async with source.store() as store:
        async for calls in _pages(store, wanted):
            shown = [call for call in calls if until is None or call.created < until]
            if since is not None:
                shown = [call for call in shown if call.created >= since]
            for told in await _told(store, source, shown, logs=logs):
                print(dumps(told))
            count += len(shown)
    return count


async def _pages(store: Store, wanted: CallFilter) -> AsyncGenerator[list[Snapshot]]:
    page: list[str] = []
    while True:
        before = page[-1] if page else None
        calls = await store.find(msgspec.structs.replace(wanted, before=before))
        if calls:
            yield calls
            page = [call.id for call in calls]
            continue
        # Where the page ended may have been pruned meanwhile: go on behind what is left of it.
        left = [id_ for id_, call in zip(page, await store.get(page), strict=True) if call is not None]
        if not page or left == page or before in left:
            return
        if not left:
            raise Exit(FAILED, "calls were pruned faster than they were exported: begin again with --since")
        page = left


async def _told(store: Store, source: Source, calls: list[Snapshot], *, logs: bool) -> list[dict[str, Any]]:
    runs = await store.runs([call.id for call in calls])
    told = [
        details(call, source.payloads) | history(call, theirs)
        for call, theirs in zip(calls, runs, strict=True)
    ]
    if logs:
        for call, each in zip(calls, told, strict=True):
            chunks = await store.logs(call.id)
            each["logs"] = [record_as_json(chunk, record) for chunk in chunks for record in chunk.records]
    return told


def _time(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"{option} is no time: {text!r}; write ISO 8601, 2030-01-31T09:00Z") from None
    if at.tzinfo is None:
        raise click.UsageError(f"{option} {text} does not say of which time zone; write {text}Z for UTC")
    return instant(at)
