"""From the templates of `mysql.sql` to what is sent, and from what comes back to rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import msgspec

from everloop._core.errors import StoreError
from everloop.store.sql.dialect import Template
from everloop.store.sql.runners.mysql_connection import MysqlConnection
from everloop.store.sql.verbs.statement import Statement

#: What a template says beside SQL; `mysql.sql` tells what each means.
_SAID = re.compile(
    r"\{for (?P<if_several>several )?(?P<each>:[^{}]+?) in :(?P<for>\w+), joined by (?P<joint>[^:]+):"
    r"(?P<repeated>[^{}]*)\}"
    r"|\{one (?P<only>:[^{}]+?) in :(?P<one>\w+):(?P<single>[^{}]*)\}"
    r"|\{several :(?P<several>\w+):(?P<plural>[^{}]*)\}"
    r"|\{(?P<column>[\w.]+) among :(?P<among>\w+)(?: of '(?P<kind>\w+)')?\}"
    r"|:(?P<name>[a-z_]+)"
)
_ROW = re.compile(r"\{row:(?P<columns>[^{}]*)\}")
#: MariaDB makes a query of a list with a thousand items, and no longer finds rows by it.
_LIST = 900
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[list[Any]]).decode

#: Writes what stands for a parameter, by name, and for a value out of a list.
_Named = Callable[[str], str]
_Value = Callable[[Any], str]
#: Values by the names that a repeated text has for them.
_Values = dict[str, Any]


class _Nothing(Exception):
    """A list that says which rows are meant is empty."""


class _Writer:
    """Writes one statement.

    Attributes:
        alone: Whether what stands alone is written so, without a list.
    """

    def __init__(self, statement: Statement, named: _Named, value: _Value, *, alone: bool) -> None:
        self.parameters = statement.parameters
        self.named = named
        self.value = value
        self.alone = alone

    def is_one(self, items: str) -> bool:
        return self.alone and len(self.parameters[items]) == 1


_Piece = Callable[[_Writer, _Values], str]


def render(connection: MysqlConnection, statement: Statement, template: Template) -> list[str]:
    """Return the statements that a name stands for, with the parameters in them."""
    value = partial(literal, connection)
    writer = _Writer(statement, lambda name: value(statement.parameters[name]), value, alone=True)
    return _write(template, writer)


def texts_of(template: Template, statement: Statement) -> list[str]:
    """Return the statements that a name stands for, with the numbers of lists written out.

    Texts are left to parameters: how they are written depends on the connection.
    """
    return _write(template, _Writer(statement, lambda name: f":{name}", int.__repr__, alone=False))


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


# -- templates, read once -----------------------------------------------------------------------------------


def _write(template: Template, writer: _Writer) -> list[str]:
    texts: list[str] = []
    for pieces in _parts(template.sql):
        try:
            texts.append("".join([p if isinstance(p, str) else p(writer, {}) for p in pieces]))
        except _Nothing:
            continue
    return texts


@cache
def _parts(sql: str) -> tuple[list[str | _Piece], ...]:
    """Read the statements that a template holds."""
    return tuple(_pieces(part) for part in _ROW.sub(_fold, sql).split(";\n"))


def _pieces(text: str) -> list[str | _Piece]:
    pieces: list[str | _Piece] = []
    end = 0
    for said in _SAID.finditer(text):
        pieces += [text[end : said.start()], _piece(said)]
        end = said.end()
    return [*pieces, text[end:]]


def _piece(said: re.Match[str]) -> _Piece:
    found = said.groupdict()
    if found["for"]:
        body = _pieces(found["repeated"].strip())
        repeated = partial(_repeated, _names(found["each"]), found["for"], found["joint"], body)
        return partial(_plural, found["for"], [repeated]) if found["if_several"] else repeated
    if found["one"]:
        return partial(_single, _names(found["only"]), found["one"], _pieces(found["single"]))
    if found["several"]:
        return partial(_plural, found["several"], _pieces(found["plural"]))
    if found["among"]:
        return partial(_among, found["column"], found["among"], found["kind"])
    return partial(_parameter, found["name"])


def _names(said: str) -> list[str]:
    return [name.strip().removeprefix(":") for name in said.split(",")]


def _joined(pieces: list[str | _Piece], writer: _Writer, values: _Values) -> str:
    return "".join([piece if isinstance(piece, str) else piece(writer, values) for piece in pieces])


def _repeated(
    names: list[str], items: str, joint: str, body: list[str | _Piece], writer: _Writer, _: _Values
) -> str:
    return joint.join([_joined(body, writer, each) for each in _each(names, writer.parameters[items])])


def _single(names: list[str], items: str, body: list[str | _Piece], writer: _Writer, _: _Values) -> str:
    return _joined(body, writer, _each(names, writer.parameters[items])[0]) if writer.is_one(items) else ""


def _plural(items: str, body: list[str | _Piece], writer: _Writer, values: _Values) -> str:
    return "" if writer.is_one(items) else _joined(body, writer, values)


def _each(names: list[str], items: Any) -> list[_Values]:
    """Return the items of a list by name; those of a dict, and of a list of rows, have several."""
    rows = items.items() if isinstance(items, dict) else items
    if len(names) == 1:
        return [{names[0]: row} for row in rows]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _among(column: str, items: str, kind: str | None, writer: _Writer, _: _Values) -> str:
    found = writer.parameters[items]
    numbers = [*map(int.__repr__, found if kind is None else _of(kind, found))]
    if not numbers:
        raise _Nothing
    starts = range(0, len(numbers), _LIST)
    lists = [f"{column} IN ({','.join(numbers[start : start + _LIST])})" for start in starts]
    return f"({' OR '.join(lists)})"


def _of(kind: str, pairs: list[list[Any]]) -> list[int]:
    return [number for number, its in pairs if its == kind]


def _parameter(name: str, writer: _Writer, values: _Values) -> str:
    return writer.value(values[name]) if name in values else writer.named(name)


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
