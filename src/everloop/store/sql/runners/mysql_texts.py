"""From the templates of `mysql.sql` to what is sent, and from what comes back to rows."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

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

#: Values by the names that a repeated text has for them.
_Values = dict[str, Any]


class _Nothing(Exception):
    """A list that says which rows are meant is empty."""


class _Writer(ABC):
    """Writes one statement out of the pieces of its template."""

    parameters: Mapping[str, Any]

    @abstractmethod
    def named(self, name: str) -> str:
        """Write a parameter."""

    @abstractmethod
    def value(self, value: Any) -> str:
        """Write a value out of a list."""

    def is_one(self, items: str) -> bool:
        """Whether a list is written as its only item."""
        return len(self.parameters[items]) == 1

    def each(self, names: list[str], items: str) -> list[_Values]:
        """Return the items of a list by name; those of a dict, and of a list of rows, have several."""
        rows = _rows_of(self.parameters[items])
        if len(names) == 1:
            return [{names[0]: row} for row in rows]
        return [dict(zip(names, row, strict=True)) for row in rows]

    def among(self, items: str, kind: str | None) -> list[int]:
        """Return the numbers of a list, or of those of a kind in it."""
        found = self.parameters[items]
        return found if kind is None else [number for number, its in found if its == kind]


class _Literals(_Writer):
    """Writes it as it is sent, with all values in it."""

    def __init__(self, connection: MysqlConnection, parameters: Mapping[str, Any]) -> None:
        self.parameters = parameters
        self._connection = connection

    def named(self, name: str) -> str:
        return literal(self._connection, self.parameters[name])

    def value(self, value: Any) -> str:
        return literal(self._connection, value)


class _Open(_Writer):
    """Writes it with its parameters left open, and no list as its only item: that is not known of a text."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = parameters

    def named(self, name: str) -> str:
        return f":{name}"

    def value(self, value: Any) -> str:
        return int.__repr__(value)

    def is_one(self, items: str) -> bool:  # noqa: ARG002 - whichever it is
        return False


class _Unfit(Exception):
    """A template has no form."""


class _Former(_Writer):
    """Writes it with gaps, for lists of one item each.

    Attributes:
        whole: The parameters that are written as they are.
        items: The gaps for the items of lists; those of a row have several.
    """

    def __init__(self) -> None:
        self.whole: set[str] = set()
        self.items: dict[str, set[tuple[str, ...]]] = {}

    def named(self, name: str) -> str:
        self.whole.add(name)
        return f"%({name})s"

    def value(self, value: Any) -> str:
        return f"%({value})s"

    def is_one(self, items: str) -> bool:
        self.items.setdefault(items, set())
        return True

    def each(self, names: list[str], items: str) -> list[_Values]:
        gaps = {name: f"{items}.{name}" for name in names}
        self.items.setdefault(items, set()).add(tuple(gaps.values()))
        return [gaps]

    def among(self, items: str, kind: str | None) -> list[int]:  # noqa: ARG002 - whichever it is
        raise _Unfit


class _Form(NamedTuple):
    """The statements of a template with gaps in them, where each of its lists has one item.

    That is so of what goes on alone, where walking through the pieces would take longer than all the rest.
    """

    texts: list[str]
    whole: list[str]
    items: list[tuple[str, list[tuple[str, ...]]]]

    def fits(self, parameters: Mapping[str, Any]) -> bool:
        """Whether each of the lists has one item."""
        return all(len(parameters[name]) == 1 for name, _ in self.items)

    def filled(self, connection: MysqlConnection, parameters: Mapping[str, Any]) -> list[str]:
        """Return the statements with these parameters in them."""
        values = {name: literal(connection, parameters[name]) for name in self.whole}
        for name, groups in self.items:
            (item,) = _rows_of(parameters[name])
            for gaps in groups:
                row = item if len(gaps) > 1 else (item,)
                for gap, value in zip(gaps, row, strict=True):
                    values[gap] = literal(connection, value)
        return [text % values for text in self.texts]


_Piece = Callable[[_Writer, _Values], str]


def render(connection: MysqlConnection, statement: Statement, template: Template) -> list[str]:
    """Return the statements that a name stands for, with the parameters in them."""
    parameters = statement.parameters
    form = _form(template.sql)
    if form is not None and form.fits(parameters):
        return form.filled(connection, parameters)
    return _write(template.sql, _Literals(connection, parameters))


def texts_of(template: Template, statement: Statement) -> list[str]:
    """Return the statements that a name stands for, with the numbers of lists written out.

    Texts are left to parameters: how they are written depends on the connection.
    """
    return _write(template.sql, _Open(statement.parameters))


def literal(connection: MysqlConnection, value: Any) -> str:
    """Write a parameter as a literal of SQL; rows travel as one JSON text, a dict as its items."""
    if isinstance(value, int):
        return f"{value:d}"
    if value is None:
        return "NULL"
    return connection.literal(value if isinstance(value, str) else in_json(value))


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


@cache
def _form(sql: str) -> _Form | None:
    """Return a template with gaps; None where rows are meant by a list of their numbers."""
    former = _Former()
    try:
        texts = _write(sql.replace("%", "%%"), former)
    except _Unfit:
        return None
    return _Form(texts, sorted(former.whole), [(name, sorted(gaps)) for name, gaps in former.items.items()])


def _write(sql: str, writer: _Writer) -> list[str]:
    texts: list[str] = []
    for pieces in _parts(sql):
        try:
            texts.append(_joined(pieces, writer, {}))
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
    return joint.join([_joined(body, writer, each) for each in writer.each(names, items)])


def _single(names: list[str], items: str, body: list[str | _Piece], writer: _Writer, _: _Values) -> str:
    return _joined(body, writer, writer.each(names, items)[0]) if writer.is_one(items) else ""


def _plural(items: str, body: list[str | _Piece], writer: _Writer, values: _Values) -> str:
    return "" if writer.is_one(items) else _joined(body, writer, values)


def _rows_of(items: Any) -> Any:
    return items.items() if isinstance(items, dict) else items


def _among(column: str, items: str, kind: str | None, writer: _Writer, _: _Values) -> str:
    numbers = [*map(int.__repr__, writer.among(items, kind))]
    if not numbers:
        raise _Nothing
    starts = range(0, len(numbers), _LIST)
    lists = [f"{column} IN ({','.join(numbers[start : start + _LIST])})" for start in starts]
    return f"({' OR '.join(lists)})"


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
