"""From the templates of `mysql.sql` to what is sent, and from what comes back to rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from everloop._core.errors import StoreError
from everloop.store.sql.dialect import Template
from everloop.store.sql.runners.mysql_connection import MysqlConnection
from everloop.store.sql.verbs.statement import Statement

_FOR = re.compile(
    r"\{for :(?P<item>\w+) in :(?P<items>\w+), joined by (?P<joint>[^:]+):(?P<each>.*?)\}", re.DOTALL
)
_SEVERAL = re.compile(r"\{several :(?P<items>\w+):(?P<text>.*?)\}", re.DOTALL)
_AMONG = re.compile(r"\{(?P<column>[\w.]+) among :(?P<items>\w+)(?: of '(?P<kind>\w+)')?\}")
_ROW = re.compile(r"\{row:(?P<columns>.*?)\}", re.DOTALL)
_PARAMETER = re.compile(r":([a-z_]+)")
#: MariaDB makes a query of a list with a thousand items, and no longer finds rows by it.
_LIST = 900
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[list[Any]]).decode


def render(connection: MysqlConnection, statement: Statement, template: Template) -> list[str]:
    """Return the statements that a name stands for, with the parameters in them."""

    def value(match: re.Match[str]) -> str:
        return literal(connection, statement.parameters[match[1]])

    return [_PARAMETER.sub(value, part) for part in texts_of(template, statement)]


def texts_of(template: Template, statement: Statement) -> list[str]:
    """Return the statements that a name stands for, with what depends on lists written out."""

    def repeat(match: re.Match[str]) -> str:
        item, each = f":{match['item']}", match["each"].strip()
        numbers = statement.parameters[match["items"]]
        return match["joint"].join(each.replace(item, f"{number:d}") for number in numbers)

    def several(match: re.Match[str]) -> str:
        return match["text"] if len(statement.parameters[match["items"]]) > 1 else ""

    def among(match: re.Match[str]) -> str:
        return _is_among(match["column"], _numbers(statement, match))

    texts: list[str] = []
    for part in _parts(template.sql):
        lists = list(_AMONG.finditer(part))
        if all(_numbers(statement, match) for match in lists):
            written = _AMONG.sub(among, part) if lists else part
            texts.append(_FOR.sub(repeat, _SEVERAL.sub(several, written)))
    return texts


@cache
def _parts(sql: str) -> tuple[str, ...]:
    return tuple(_ROW.sub(_fold, sql).split(";\n"))


def _fold(match: re.Match[str]) -> str:
    columns = ", ".join(f"IFNULL({column}, 'null')" for column in _split(match["columns"]))
    return f"CONCAT('[', CONCAT_WS(_utf8mb4',' COLLATE utf8mb4_bin, {columns}), ']')"


def _split(columns: str) -> list[str]:
    """Split at the commas that stand in no brackets."""
    found, depth = [""], 0
    for letter in columns:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [" ".join(column.split()) for column in found]


def _numbers(statement: Statement, match: re.Match[str]) -> list[int]:
    """Return the numbers of a list, or those of one kind in a list of pairs."""
    items = statement.parameters[match["items"]]
    kind = match["kind"]
    return items if kind is None else [number for number, its in items if its == kind]


def _is_among(column: str, numbers: list[int]) -> str:
    written = list(map(str, numbers))
    lists = [
        f"{column} IN ({','.join(written[start : start + _LIST])})" for start in range(0, len(written), _LIST)
    ]
    return f"({' OR '.join(lists)})"


def literal(connection: MysqlConnection, value: Any) -> str:
    """Write a parameter as a literal of SQL; rows travel as one JSON text, a dict as its items."""
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return f"{value:d}"
    return connection.literal(in_json(value))


def in_json(value: Any) -> Any:
    """Write lists and dicts as JSON, a dict as its items, and leave anything else as it is."""
    if isinstance(value, dict):
        value = list(value.items())
    return _encode(value).decode() if isinstance(value, list) else value


def unfolded(template: Template, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    """Return a statement's rows with the columns that the template names.

    Raises:
        StoreError: A row is larger than the server sends.
    """
    if not _is_folded(template.sql):
        return rows
    texts = [row[0] for row in rows]
    if None in texts:
        raise StoreError(
            f"MySQL sent an empty row ({template.name}), as it does when one is larger than its "
            "max_allowed_packet; set it as high as it was when the calls were added"
        )
    return _decode(f"[{','.join(texts)}]")


@cache
def _is_folded(sql: str) -> bool:
    return _ROW.search(sql) is not None
