"""`everloop ls`: list calls."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from everloop._core.calls import State
from everloop._core.errors import TaskNotFound
from everloop._core.records import CallFilter, Snapshot
from everloop._core.text import near_miss
from everloop.cli import exits
from everloop.cli.group import Command
from everloop.cli.reading import Source, output_option, run, source_of, source_options
from everloop.cli.tables import Column, table
from everloop.cli.terminal import Style, say, width
from everloop.cli.times import ago, length
from everloop.cli.view import dumps, reason, summary

STATE_STYLES: dict[State, Style] = {
    State.LEASED: "cyan",
    State.SUCCEEDED: "green",
    State.FAILED: "red",
    State.EXPIRED: "red",
    State.CANCELLED: "yellow",
}


@click.command(
    "ls",
    cls=Command,
    example="""
everloop ls shop:app --state failed --limit 20
everloop ls --db sqlite:///shop.db -o jsonl | jq .reason
""",
    codes=(exits.OK, exits.USAGE, exits.NOT_FOUND, exits.STORE),
)
@click.argument("target", metavar="[APP]", required=False)
@click.option("--state", metavar="STATE", multiple=True, help=f"Only these states: {', '.join(State)}.")
@click.option("--queue", metavar="NAME", help="Only this queue.")
@click.option("--name", metavar="NAME", help="Only this task function.")
@click.option("--tag", metavar="TEXT", help="Only calls with this tag.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many at most."
)
@click.option("--before", metavar="ID", help="Continue after this call, the last one shown.")
@source_options
@output_option
def command(  # noqa: PLR0913 - one per option
    target: str | None,
    *,
    state: tuple[str, ...],
    queue: str | None,
    name: str | None,
    tag: str | None,
    limit: int,
    before: str | None,
    db: str | None,
    output: str,
) -> None:
    """List calls, newest first."""
    states = tuple(map(read_state, (each for text in state for each in text.split(","))))
    source = source_of(target, db)
    wanted = CallFilter(
        app=source.name, states=states, queue=queue, fn=name, tag=tag, limit=limit, before=before
    )
    calls = run(_find(source, wanted))
    if output == "json":
        print(dumps([summary(call) for call in calls], indent=2))
    elif output == "jsonl":
        for call in calls:
            print(dumps(summary(call)))
    else:
        _print_table(calls)
        if len(calls) == limit:
            say(f"everloop: there may be more; continue with --before {calls[-1].id}")


async def _find(source: Source, wanted: CallFilter) -> list[Snapshot]:
    async with source.store() as store:
        if wanted.before is not None:
            (last,) = await store.get([wanted.before])
            if last is None:
                raise TaskNotFound(f"no call has the id {wanted.before!r} (from --before)")
        return await store.find(wanted)


def read_state(text: str) -> State:
    """Return the state with this name.

    Raises:
        click.BadParameter: There is none.
    """
    try:
        return State(text.strip().lower())
    except ValueError:
        known = ", ".join(State)
        raise click.BadParameter(
            f"there is no state {text!r}{near_miss(text, State)}; the states are {known}"
        ) from None


def _print_table(calls: Sequence[Snapshot]) -> None:
    if not calls:
        say("everloop: no calls")
        return
    now = time.time_ns() // 1_000
    several = len({call.lane.app for call in calls}) > 1
    columns: list[Column[Snapshot]] = [
        Column("ID", lambda c: c.id),
        Column("APP", lambda c: c.lane.app if several else "", least=6, rank=4),
        Column("FUNCTION", lambda c: c.lane.fn, least=8, rank=1),
        Column("STATE", lambda c: c.state.value, style=lambda c: _styles(c.state)),
        Column("QUEUE", lambda c: c.lane.queue, least=5, rank=6),
        Column("TRIES", lambda c: str(c.attempt + c.crashes + (c.state is State.LEASED)), right=True, rank=5),
        Column("AGE", lambda c: ago(c.created, now), right=True, rank=2),
        Column("TOOK", lambda c: length(c, now), right=True, rank=4),
        Column("NOTE", note, least=12, rank=3, style=lambda _: ("dim",)),
    ]
    print("\n".join(table(calls, columns, width())))


def note(call: Snapshot) -> str:
    """Return what is most worth knowing of a call, in one line."""
    if why := reason(call.error):
        return why
    if not call.state.final and call.progress is not None:
        done, total, text = call.progress
        share = f"{done:g}" if total is None else f"{done:g}/{total:g}"
        return f"{share} {text}".strip()
    if call.cancel_asked is not None and not call.state.final:
        return "asked to cancel"
    return " ".join(f"#{tag}" for tag in call.tags)


def _styles(state: State) -> tuple[Style, ...]:
    return (STATE_STYLES[state],) if state in STATE_STYLES else ()
