"""`everloop migrate`: the schema of a store."""

from __future__ import annotations

import click

from everloop.cli import exits
from everloop.cli.exits import Exit
from everloop.cli.group import Command
from everloop.cli.reading import run
from everloop.store.sql.dialect import Migration
from everloop.store.sql.sql_store import SqlStore
from everloop.store.url import store_from_url


@click.command(
    "migrate",
    cls=Command,
    example="""
everloop migrate postgresql://shop@localhost/shop
everloop migrate sqlite:///shop.db --check && everloop worker shop:app
""",
    codes=(exits.OK, exits.FAILED, exits.USAGE, exits.STORE),
)
@click.argument("url", metavar="URL")
@click.option("--sql", "how", flag_value="sql", help="Print the statements that would be executed.")
@click.option("--plan", "how", flag_value="plan", help="Name the migrations that would be applied.")
@click.option("--check", "how", flag_value="check", help="Exit with 1 when a migration is missing.")
def command(url: str, how: str | None) -> None:
    """Bring the schema of the store at URL up to date.

    Opening a store makes its schema where there is none. An older one on a server is left to this command, so
    that a deploy decides when.
    """
    store = store_from_url(url)
    if not isinstance(store, SqlStore):
        raise click.UsageError(f"{url.partition('://')[0]}:// has no schema: there is nothing to migrate")
    found, missing = run(store.migrations())
    if how == "sql":
        click.echo("".join(f"{statement};\n" for statement in store.script(missing)), nl=False)
    elif how is not None or not missing:
        click.echo(_told(found, missing))
        if how == "check" and missing:
            raise Exit(exits.FAILED)
    else:
        run(store.migrate())
        click.echo(f"applied {_names(missing)}")


def _told(found: int, missing: list[Migration]) -> str:
    state = f"schema {found}" if found else "no schema yet"
    return f"{state}; missing: {_names(missing)}" if missing else f"{state}; nothing is missing"


def _names(missing: list[Migration]) -> str:
    return ", ".join(f"{each.number:04d}_{each.name}" for each in missing)
