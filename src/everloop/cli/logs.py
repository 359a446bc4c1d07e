"""`everloop logs ID`: what the runs of a call have logged."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from everloop._core.logs import LogChunk, LogRecord
from everloop._history import chunks_of
from everloop.cli import exits
from everloop.cli.group import Command
from everloop.cli.reading import (
    Source,
    not_found,
    output_option,
    run,
    source_of,
    source_options,
    split_target,
)
from everloop.cli.terminal import Style, clean, paint, say
from everloop.cli.view import dumps, iso
from everloop.store.protocol import Store

#: Seconds between looks at a call that is followed.
LOOK = 0.5
_STYLES: dict[str, Style] = {
    "WARNING": "yellow",
    "ERROR": "red",
    "CRITICAL": "red",
    "DEBUG": "dim",
    "NOTE": "dim",
}


@click.command(
    "logs",
    cls=Command,
    example="""
everloop logs shop:app 0198c0de-0000-7000-8000-000000000001 --follow
everloop logs --db sqlite:///shop.db 0198c0de-0000-7000-8000-000000000001 -o jsonl
""",
    codes=(exits.OK, exits.USAGE, exits.NOT_FOUND, exits.STORE),
)
@click.argument("words", metavar="[APP] ID", nargs=-1, required=True)
@click.option("-f", "--follow", is_flag=True, help="Go on until the call has ended.")
@source_options
@output_option
def command(words: tuple[str, ...], *, follow: bool, db: str | None, output: str) -> None:
    """Show what the runs of a call have logged and printed, oldest first."""
    target, ids = split_target(words)
    if len(ids) != 1:
        raise click.UsageError(f"give one id, not {len(ids)}: everloop logs [APP] ID")
    if follow and output == "json":
        raise click.UsageError("-o json prints one value, and --follow has no end: write -o jsonl")
    printer = _Printer(output)
    run(_show(source_of(target, db), ids[0], printer, follow=follow))
    printer.end()


async def _show(source: Source, id_: str, printer: _Printer, *, follow: bool) -> None:
    async with source.store() as store:
        after = (0, 0)
        while True:
            # Whether it has ended is seen before its logs are read, and these come a moment after it.
            ended = await _has_ended(store, id_)
            async for chunk in chunks_of(store, id_, after):
                printer.show(chunk)
                after = chunk.fence, chunk.n
            if not follow or (ended and printer.settled):
                return
            printer.settled = ended
            await asyncio.sleep(LOOK)


async def _has_ended(store: Store, id_: str) -> bool:
    (call,) = await store.get([id_])
    if call is None:
        raise not_found(id_)
    return call.state.final


class _Printer:
    """Prints records as they come.

    Attributes:
        settled: Whether there has been a look at the logs since the call was seen to have ended.
    """

    def __init__(self, output: str) -> None:
        self.settled = False
        self._output = output
        self._told: list[dict[str, Any]] = []
        self._shown = False

    def show(self, chunk: LogChunk) -> None:
        for record in chunk.records:
            self._shown = True
            if self._output == "table":
                print(_line(record), flush=True)
            elif self._output == "jsonl":
                print(dumps(record_as_json(chunk, record)), flush=True)
            else:
                self._told.append(record_as_json(chunk, record))

    def end(self) -> None:
        if self._output == "json":
            print(dumps(self._told, indent=2))
        elif not self._shown and self._output == "table":
            say("everloop: nothing was logged")


def _line(record: LogRecord) -> str:
    style = _STYLES.get(record.level)
    level = paint(f"{clean(record.level):<8}", *(() if style is None else (style,)))
    name = f"{clean(record.logger)}: " if record.logger else ""
    text = clean(record.text, lines=True).replace("\n", "\n    ")
    return f"{paint(str(iso(record.at)), 'dim')} {level} {name}{text}"


def record_as_json(chunk: LogChunk, record: LogRecord) -> dict[str, Any]:
    """Return one record as JSON tells it."""
    return {
        "at": iso(record.at),
        "attempt": chunk.attempt,
        "level": record.level,
        "logger": record.logger,
        "text": record.text,
    }
