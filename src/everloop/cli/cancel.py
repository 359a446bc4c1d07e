"""`everloop cancel ID...`: cancel calls."""

from __future__ import annotations

import click

from everloop._core.calls import State
from everloop.cli import exits
from everloop.cli.group import Command
from everloop.cli.reading import Source, not_found, run, source_of, source_options, split_target
from everloop.cli.terminal import say


@click.command(
    "cancel",
    cls=Command,
    example="everloop cancel shop:app 0198c0de-0000-7000-8000-000000000001 --message 'wrong address'",
    codes=(exits.OK, exits.FAILED, exits.USAGE, exits.NOT_FOUND, exits.STORE),
)
@click.argument("words", metavar="[APP] ID...", nargs=-1, required=True)
@click.option("--message", metavar="TEXT", default="", help="Why; the running body gets it.")
@source_options
def command(words: tuple[str, ...], message: str, db: str | None) -> int:
    """Cancel calls: one that waits at once, one that runs by asking its worker.

    Prints the id and what became of it: `cancelled`, or `asked` when a worker is about to stop it.
    """
    target, ids = split_target(words)
    return run(_cancel(source_of(target, db), ids, message))


async def _cancel(source: Source, ids: tuple[str, ...], message: str) -> int:
    code = exits.OK
    async with source.store() as store:
        before = {call.id: call.state for call in await store.get(ids) if call is not None}
        for id_, state, asked, _ in await store.cancel(ids, message):
            if state is None:
                say(f"everloop: {not_found(id_)}")
                code = exits.NOT_FOUND
            elif state.final and state is not State.CANCELLED and before.get(id_) is state:
                say(f"everloop: the call {id_} is {state.value}: there is nothing to cancel")
                code = code or exits.FAILED
            else:
                print(id_, "asked" if asked else "cancelled", flush=True)
    return code
