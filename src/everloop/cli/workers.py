"""`everloop workers`: list the workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import click

from everloop._core.clock import SECOND
from everloop._core.looks import Gauges, SessionLook
from everloop._workers import worker_of
from everloop.cli import exits
from everloop.cli.group import Command
from everloop.cli.limits import shown
from everloop.cli.reading import Source, output_option, run, source_of, source_options
from everloop.cli.tables import Column, table
from everloop.cli.terminal import say, width
from everloop.cli.times import ago, span
from everloop.cli.view import dumps, iso


@click.command(
    "workers",
    cls=Command,
    example="""
everloop workers shop:app
everloop workers --db postgresql://shop@localhost/shop -o jsonl | jq .memory
""",
    codes=(exits.OK, exits.USAGE, exits.STORE),
)
@click.argument("target", metavar="[APP]", required=False)
@source_options
@output_option
def command(target: str | None, db: str | None, output: str) -> None:
    """List the workers: where they run, what they serve, and how they are.

    Slots, memory and lag are those of the last time that a worker renewed its leases, some seconds ago.
    """
    now, workers = run(_find(source_of(target, db)))
    if output == "json":
        print(dumps([summary(each, now) for each in workers], indent=2))
    elif output == "jsonl":
        for each in workers:
            print(dumps(summary(each, now)))
    else:
        _print_table(workers, now)


async def _find(source: Source) -> tuple[int, list[SessionLook]]:
    async with source.store() as store:
        sessions = await store.sessions(source.name)
        return store.now(), [each for each in sessions if each.kind == "worker"]


def summary(worker: SessionLook, now: int) -> dict[str, Any]:
    """Return what a listing tells of a worker."""
    told = asdict(worker_of(worker, now))
    return {"session": told.pop("session"), "app": worker.app, **told, "started": iso(worker.opened)}


def _print_table(workers: Sequence[SessionLook], now: int) -> None:
    if not workers:
        say("everloop: no worker is running")
        return
    several = len({worker.app for worker in workers}) > 1
    columns: list[Column[SessionLook]] = [
        Column("SESSION", lambda w: str(w.number), right=True),
        Column("APP", lambda w: w.app if several else "", least=6, rank=4),
        Column("HOST", lambda w: w.host, least=6, rank=3),
        Column("PID", lambda w: str(w.pid), right=True),
        Column("SINCE", lambda w: ago(w.opened, now), right=True, rank=5),
        Column("QUEUES", lambda w: ",".join(w.queues), least=6, rank=6),
        Column("CALLS", lambda w: str(w.leased), right=True, rank=2),
        Column("SLOTS", lambda w: _of(w.gauges, lambda g: f"{g.running}/{g.slots}"), right=True),
        Column("MEMORY", lambda w: _of(w.gauges, lambda g: shown(g.memory)), right=True),
        Column("LAG", lambda w: _of(w.gauges, lambda g: span(g.lag / SECOND)), right=True, rank=1),
        Column("NOTE", lambda w: "" if w.until > now else f"its lease ended {ago(w.until, now)} ago", rank=1),
    ]
    print("\n".join(table(workers, columns, width())))


def _of(gauges: Gauges | None, text: Callable[[Gauges], str]) -> str:
    return "-" if gauges is None else text(gauges)
