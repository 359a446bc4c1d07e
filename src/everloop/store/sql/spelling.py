"""How a statement is spelled for one driver: its parameters, and what its rows come back as.

The statements are written with `:name`. A driver of its own (`runners/sqlite.py`) may take that as it is;
on a connection of the user's it is the driver's style that counts, whichever that is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from everloop._core.errors import StoreError
from everloop.store.sql.dialect import Template
from everloop.store.sql.verbs.statement import Statement

#: Texts, quoted names, comments and casts hold colons that begin no parameter.
_PARTS = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|--[^\n]*|::|:(?P<name>[A-Za-z_]\w*)|%")


_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Folding:
    """How a database takes and gives rows: what one dialect has of its own, and no driver.

    Attributes:
        dialect: The statements file, and SQLAlchemy's name of the database.
        texts_of: A statement's texts, in order, of which the last answers; a query may be folded so that its
            rows come back as one value.
        parameters_of: What is bound to a statement; lists and dicts travel as JSON, for instance.
        rows_of: The rows that came back, unfolded.
        explain: Turns the driver's error into ours; it is given the statement's name.
    """

    dialect: str
    texts_of: Callable[[Template, Statement], Sequence[str]]
    parameters_of: Callable[[Statement], dict[str, Any]]
    rows_of: Callable[[Template, Sequence[Sequence[Any]]], list[list[Any]]]
    explain: Callable[[BaseException, str], StoreError]


@dataclass(frozen=True, slots=True)
class Spelled:
    """A statement in one style of parameters (PEP 249, and the `$1` of asyncpg).

    Attributes:
        names: The parameters by position; None when they go by name.
    """

    sql: str
    names: tuple[str, ...] | None

    def bind(self, values: Mapping[str, Any]) -> dict[str, Any] | tuple[Any, ...]:
        """Return the values as the driver wants them."""
        return dict(values) if self.names is None else tuple(values[name] for name in self.names)


@lru_cache(maxsize=1024)
def spelled(sql: str, style: str) -> Spelled:
    """Spell a statement with `:name` parameters in the style of a driver."""
    names: list[str] = []
    percent = "%%" if style in ("format", "pyformat") else "%"

    def spell(part: re.Match[str]) -> str:
        name = part["name"]
        if name is None:
            return part[0].replace("%", percent)
        if style in ("numeric", "numeric_dollar"):
            if name not in names:
                names.append(name)
            return f"{':' if style == 'numeric' else '$'}{names.index(name) + 1}"
        names.append(name)
        return {"qmark": "?", "format": "%s", "named": f":{name}", "pyformat": f"%({name})s"}[style]

    text = _PARTS.sub(spell, sql)
    return Spelled(text, None if style in ("named", "pyformat") else tuple(names))


def parameters_of(statement: Statement) -> dict[str, Any]:
    """Return what is bound to a statement; rows travel as one JSON text."""
    return {
        name: _encode(value).decode() if isinstance(value, list | dict) else value
        for name, value in statement.parameters.items()
    }
