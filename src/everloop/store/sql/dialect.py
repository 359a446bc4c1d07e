"""A dialect's statements and migrations, read from their `.sql` files once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

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
    """One step of the schema."""

    number: int
    name: str
    script: str


@cache
def migrations(dialect: str) -> tuple[Migration, ...]:
    """Read the numbered migrations of a dialect, in order."""
    folder = files("everloop.store.sql").joinpath(f"migrations/{dialect}")
    found: list[Migration] = []
    for entry in folder.iterdir():
        number, _, name = entry.name.removesuffix(".sql").partition("_")
        found.append(Migration(int(number), name, entry.read_text("utf-8")))
    return tuple(sorted(found))


def split(script: str) -> list[str]:
    """Split a migration into statements, without its comments."""
    lines = [line.partition("--")[0] for line in script.splitlines()]
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]
