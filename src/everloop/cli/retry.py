"""`everloop retry ID...`: submit finished calls anew."""

from __future__ import annotations

import click

from everloop._core.records import repeat_of
from everloop.cli import exits
from everloop.cli.group import Command
from everloop.cli.reading import Source, not_found, run, source_of, source_options, split_target
from everloop.cli.terminal import say


@click.command(
    "retry",
    cls=Command,
    example="""
everloop retry shop:app 0198c0de-0000-7000-8000-000000000001
everloop ls shop:app --state failed -o jsonl | jq -r .id | xargs everloop retry shop:app
""",
    codes=(exits.OK, exits.FAILED, exits.USAGE, exits.NOT_FOUND, exits.STORE),
)
@click.argument("words", metavar="[APP] ID...", nargs=-1, required=True)
@source_options
def command(words: tuple[str, ...], db: str | None) -> int:
    """Submit finished calls anew, and print the new ids.

    A finished call never changes: each of these is a new one, and says of which it is the repeat.
    """
    target, ids = split_target(words)
    return run(_retry(source_of(target, db), ids))


async def _retry(source: Source, ids: tuple[str, ...]) -> int:
    code = exits.OK
    async with source.store() as store:
        for id_, old in zip(ids, await store.get(ids), strict=True):
            if old is None:
                say(f"everloop: {not_found(id_)}")
                code = exits.NOT_FOUND
            elif not old.state.final:
                say(f"everloop: the call {id_} is {old.state.value}: only a finished call can be retried")
                code = code or exits.FAILED
            else:
                (added,) = await store.add(None, [repeat_of(old, told=False)])
                if added.status == "refused":
                    say(
                        f"everloop: {id_} is a callback, and the call that it is about is not stored any more"
                    )
                    code = code or exits.NOT_FOUND
                else:
                    print(added.id, flush=True)
    return code
