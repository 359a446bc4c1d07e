"""`everloop show ID`: everything about one call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click

from everloop._core.records import Snapshot
from everloop._core.runs import FIRST, RunRecord
from everloop.cli import exits
from everloop.cli.group import Command
from everloop.cli.ls import STATE_STYLES
from everloop.cli.reading import (
    Source,
    not_found,
    output_option,
    run,
    source_of,
    source_options,
    split_target,
)
from everloop.cli.terminal import Style, clean, paint
from everloop.cli.times import ago, length
from everloop.cli.view import details, dumps, history, iso


@click.command(
    "show",
    cls=Command,
    example="""
everloop show shop:app 0198c0de-0000-7000-8000-000000000001
everloop show --db sqlite:///shop.db 0198c0de-0000-7000-8000-000000000001 -o json
""",
    codes=(exits.OK, exits.USAGE, exits.NOT_FOUND, exits.STORE),
)
@click.argument("words", metavar="[APP] ID", nargs=-1, required=True)
@source_options
@output_option
def command(words: tuple[str, ...], db: str | None, output: str) -> None:
    """Show everything about one call: arguments, attempts, result or error with its traceback, progress."""
    target, ids = split_target(words)
    if len(ids) != 1:
        raise click.UsageError(f"give one id, not {len(ids)}: everloop show [APP] ID")
    source = source_of(target, db)
    call, runs = run(_get(source, ids[0]))
    told = details(call, source.payloads) | history(call, runs)
    if output == "table":
        print("\n".join(_lines(call, told)))
    else:
        print(dumps(told, indent=2 if output == "json" else None))


async def _get(source: Source, id_: str) -> tuple[Snapshot, list[RunRecord]]:
    async with source.store() as store:
        (call,) = await store.get([id_])
        (runs,) = await store.runs([id_])
    if call is None:
        raise not_found(id_)
    return call, runs


def _lines(call: Snapshot, told: dict[str, Any]) -> Iterator[str]:
    style: tuple[Style, ...] = (STATE_STYLES[call.state],) if call.state in STATE_STYLES else ()
    yield _field("call", paint(call.id, "bold"))
    yield _field("function", _text(f"{call.lane.fn}  (app {call.lane.app}, queue {call.lane.queue})"))
    yield _field("state", paint(call.state.value, "bold", *style) + _tries(call))
    yield from _times(call)
    yield _field("args", _text(_call_text(call, told)))
    if told["unreadable"]:
        yield _field("unreadable", _text(told["unreadable"]))
    if call.progress is not None:
        yield _field("progress", _text(_progress(*call.progress)))
    for name in ("key", "parent", "after", "retry_of", "cancel_asked"):
        if told[name] is not None:
            yield _field(name.replace("_", " "), _text(str(told[name])) or "(no message)")
    if call.tags:
        yield _field("tags", _text(" ".join(f"#{tag}" for tag in call.tags)))
    if call.value is not None and not told["unreadable"]:
        yield _field("result", _text(dumps(told["result"])))
    yield from _runs(told)
    if told["error"] is not None:
        yield from _error(told["error"])


def _field(name: str, value: str) -> str:
    return f"{paint(f'{name:<12}', 'dim')}{value}"


def _text(text: str) -> str:
    return clean(text)


def _tries(call: Snapshot) -> str:
    tries = []
    if call.attempt:
        tries.append(f"{call.attempt} attempt{'s' if call.attempt > 1 else ''}")
    if call.crashes:
        tries.append(f"{call.crashes} crash{'es' if call.crashes > 1 else ''}")
    return f"  ({', '.join(tries)})" if tries else ""


def _times(call: Snapshot) -> Iterator[str]:
    now = time.time_ns() // 1_000
    marks = [("submitted", call.created), ("started", call.started), ("ended", call.ended)]
    if not call.state.final and call.due > now:
        marks.append(("due", call.due))
    if call.expires is not None and not call.state.final:
        marks.append(("expires", call.expires))
    for name, at in marks:
        if at is not None:
            took = f", took {length(call, now)}" if name == "ended" and call.started is not None else ""
            when = ago(at, now)
            yield _field(name, f"{iso(at)}  ({when if when.startswith('in') else f'{when} ago'}{took})")


def _call_text(call: Snapshot, told: dict[str, Any]) -> str:
    given = [dumps(value) for value in told["args"] or []]
    given += [f"{name}={dumps(value)}" for name, value in (told["kwargs"] or {}).items()]
    if call.after is not None:
        given.append("<the finished task>")
    return f"{call.lane.fn}({', '.join(given)})"


def _progress(done: float, total: float | None, note: str) -> str:
    if not total:
        return f"{done:g} {note}".strip()
    share = min(1.0, max(0.0, done / total))
    return f"[{'#' * round(share * 20):<20}] {done:g}/{total:g} {note}".strip()


def _runs(told: dict[str, Any]) -> Iterator[str]:
    """Show the runs where there is more to tell than that the one there was ended as the call did."""
    runs = told["history"]
    if len(runs) < 2 and all(run["kind"] in ("succeeded", "failed", "cancelled") for run in runs):
        return
    for n, each in enumerate(runs):
        place = f"{each['host']}, pid {each['pid']}" if each["host"] else "an unknown worker"
        words = [f"attempt {each['attempt']} {each['kind']}", str(each["ended"]), f"on {place}"]
        yield _field("" if n else "history", _text("  ".join([*words, each["reason"] or ""]).rstrip()))
        if n == FIRST - 1 and told["history_left_out"]:
            yield _field("", f"... {told['history_left_out']} more are not kept ...")


def _error(error: dict[str, Any]) -> Iterator[str]:
    title = clean(f"{error.get('type')}: {error.get('text')}".rstrip(": "), lines=True)
    yield _field("error", paint(title, "red"))
    for text in error.get("notes", []):
        yield _field("note", clean(str(text)))
    trace = clean(str(error.get("traceback") or ""), lines=True).rstrip()
    if trace:
        yield ""
        yield from (f"    {line}" for line in trace.splitlines())
    for n, member in enumerate(error.get("members", []), 1):
        yield ""
        yield _field(f"member {n}", clean(f"{member.get('type')}: {member.get('text')}"))
