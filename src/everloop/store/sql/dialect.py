"""A dialect's statements and migrations, read from their `.sql` files once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

#: Stands in a migration that only adds: the release with this schema works on, beside it and started anew.
_OLDEST = re.compile(r"^-- oldest: (\d+)$", re.MULTILINE)
_NAME = re.compile(r"^-- name: (?P<name>\w+)(?: -> (?P<columns>.+))?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Template:
    """One named statement: its text, and its columns when it answers with rows."""

    name: str
    sql: str
    columns: tuple[str, ...]


@cache
def statements(dialect: str) -> dict[str, Template]:
    """Read `statements/<dialect>.sql`."""
    source = files("everloop.store.sql").joinpath(f"statements/{dialect}.sql").read_text("utf-8")
    marks = list(_NAME.finditer(source))
    ends = [mark.start() for mark in marks[1:]] + [len(source)]
    templates: dict[str, Template] = {}
    for mark, end in zip(marks, ends, strict=True):
        lines = source[mark.end() : end].splitlines()
        sql = "\n".join(line for line in lines if line and not line.startswith("--"))
        columns = tuple(c.strip() for c in (mark["columns"] or "").split(",") if c.strip())
        templates[mark["name"]] = Template(mark["name"], sql, columns)
    return templates


class Migration(NamedTuple):
    """One step of the schema.

    Attributes:
        oldest: The oldest schema whose release goes on with this one; 0 where that is none but its own.
    """

    number: int
    name: str
    script: str
    oldest: int = 0


def oldest_of(known: Iterable[Migration]) -> int:
    """Return the oldest schema whose release goes on with what these migrations make."""
    return max(each.oldest or each.number for each in known)


def under(schema: int) -> str:
    """Return the name under which a schema says that: whoever changes only its number says nothing of it."""
    return f"oldest {schema}"


@cache
def migrations(dialect: str) -> tuple[Migration, ...]:
    """Read the numbered migrations of a dialect, in order."""
    folder = files("everloop.store.sql").joinpath(f"migrations/{dialect}")
    found: list[Migration] = []
    for entry in folder.iterdir():
        number, _, name = entry.name.removesuffix(".sql").partition("_")
        script = entry.read_text("utf-8")
        goes_on = _OLDEST.search(script)
        found.append(Migration(int(number), name, script, int(goes_on[1]) if goes_on else 0))
    return tuple(sorted(found))


#: Said of a store whose schema is newer than the program, when that does not matter.
GOES_ON = "everloop: the store %s has schema %d; this version of Everloop knows %d, and goes on with it"


def newer(store: str, found: int, known: int) -> str:
    """Tell of a store whose schema is too new."""
    return (
        f"{store} has schema {found}, but this version of Everloop knows {known}; "
        "upgrade it (pip install -U everloop). Nothing has been changed"
    )


def split(script: str) -> list[str]:
    """Split a migration into statements, without its comments."""
    lines = [line.partition("--")[0] for line in script.splitlines()]
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]
