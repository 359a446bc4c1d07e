"""`everloop doctor`: what may be wrong, and what to do about it."""

from __future__ import annotations

import asyncio
import textwrap
from dataclasses import asdict

import click

from everloop._checkup import Facts, Finding, examine
from everloop._core.calls import State
from everloop._core.text import without_password
from everloop.cli import exits
from everloop.cli.group import Command
from everloop.cli.reading import Source, output_option, run, source_of, source_options
from everloop.cli.terminal import Style, clean, paint, width
from everloop.cli.view import dumps
from everloop.store.sql.sql_store import SqlStore

_STYLES: dict[str, Style] = {"ok": "green", "note": "yellow", "wrong": "red"}


@click.command(
    "doctor",
    cls=Command,
    example="""
everloop doctor shop:app
everloop doctor --db postgresql://shop@localhost/shop -o json
""",
    codes=(exits.OK, exits.FAILED, exits.USAGE, exits.STORE),
)
@click.argument("target", metavar="[APP]", required=False)
@source_options
@output_option
def command(target: str | None, db: str | None, output: str) -> int:
    """Look at a store, its workers, and the calls that wait there; say what is wrong and what to do.

    Exits with 1 when something is wrong. A store that cannot be opened says so by itself (exit code 4).
    """
    source = source_of(target, db)
    findings = run(_look(source))
    if output == "json":
        print(dumps([asdict(each) for each in findings], indent=2))
    elif output == "jsonl":
        for each in findings:
            print(dumps(asdict(each)))
    else:
        for each in findings:
            _print(each)
    return exits.FAILED if any(each.level == "wrong" for each in findings) else exits.OK


async def _look(source: Source) -> list[Finding]:
    async with source.store() as store:
        assert isinstance(store, SqlStore)  # noqa: S101 - others live inside one process, and were refused
        schema, _ = await store.migrations()
        vitals, sessions, backlog, counts = await asyncio.gather(
            store.vitals(), store.sessions(source.name), store.backlog(source.name), store.counts(source.name)
        )
        app = source.app
        names = [app.name] if app is not None else sorted({each.app for each in sessions})
        serving = {pair for name in names for pair in await store.serving(name)}
        facts = Facts(
            now=store.now(),
            vitals=vitals,
            sessions=sessions,
            serving=serving,
            backlog=backlog,
            functions=None if app is None else list(app.functions),
            command="everloop worker module:app" if app is None else app.worker_command().strip("`"),
            finished=sum(counts[state] for state in State if state.final),
            keep=None if app is None else app.keeps,
            swept=None if app is None else await store.swept(app.name),
        )
    told = f"{vitals.version} answers at {without_password(source.url)}, with schema {schema}"
    return [Finding("ok", "store", told), *examine(facts)]


def _print(finding: Finding) -> None:
    label = paint(f"{finding.level:<6}", _STYLES[finding.level])
    space = max(30, (width() or 110) - 17)
    lines = textwrap.wrap(clean(finding.what), space)
    lines += textwrap.wrap(clean(f"-> {finding.do}"), space, subsequent_indent="   ") if finding.do else []
    for n, line in enumerate(lines):
        print(f"{label if n == 0 else ' ' * 6} {finding.where if n == 0 else '':<9} {line}")
