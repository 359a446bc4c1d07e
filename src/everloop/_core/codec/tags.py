"""Any value as JSON: tags carry what JSON cannot say.

A tag is an object of one key that begins with `$`::

    {"$tuple": [1, 2]}      {"$set": [...]}       {"$frozenset": [...]}    {"$bytes": "base64"}
    {"$datetime": "ISO"}    {"$date": "ISO"}      {"$time": "ISO"}         {"$timedelta": [days, s, us]}
    {"$decimal": "1.10"}    {"$uuid": "..."}      {"$float": "nan"}        {"$int": "0x..."}
    {"$path": "/tmp"}       {"$posixpath": "a"}   {"$windowspath": "a"}    {"$dict": [[key, value], ...]}
    {"$:Order": {...}}      an instance of a class that the annotation names

`$dict` writes dicts with keys that are no strings, or that begin with `$`. Sets are sorted by their
encoded elements: equal values give equal bytes in every process (an argument digest depends on it).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, Final
from uuid import UUID

import msgspec

from everloop._core.codec import records
from everloop._core.codec.known import NOTHING_KNOWN, Known, registered, tagged
from everloop._core.codec.refusal import DEPTH, Refused, explain, key_step, short, too_deep, would_be_plain

#: Types that JSON keeps as they are, whatever their value (but for lone surrogates: `encode` says).
PLAIN: Final = frozenset({str, int, bool, type(None)})
# From here on Python itself refuses to write an int in decimal (`sys.set_int_max_str_digits`).
_HUGE: Final = 10**4300

ACCEPTED: Final = (
    "str, int, float, bool, None, list, dict, tuple, set, frozenset, bytes, datetime, date, time, "
    "timedelta, Decimal, UUID or Path"
)

_encode = msgspec.json.Encoder().encode


# -- values to JSON -----------------------------------------------------------------------------


def dump(value: object, known: Known = NOTHING_KNOWN) -> bytes:
    """Return `value` as tagged JSON.

    Raises:
        Refused: A part of it has no tag.
    """
    try:
        return _encode(to_tree(value, known))
    except ValueError:  # a string or an int that cannot be written: say where, or tag it
        careful = Known(known.tags, known.classes, known.met, careful=True)
        return _encode(to_tree(value, careful))
    except RecursionError:
        raise too_deep() from None


def to_tree(value: object, known: Known, depth: int = 0) -> Any:
    kind = type(value)
    if kind in PLAIN:
        return _careful_tree(value) if known.careful else value
    if depth > DEPTH:
        raise too_deep()
    writer = _WRITERS.get(kind)
    if writer is not None:
        return writer(value, known, depth)
    if kind in known.tags:
        return {known.tags[kind]: _record_tree(value, known, depth)}
    entry = registered(kind)
    if entry is not None:
        body = entry.dump(value)
        if known.met is not None:
            known.met[entry.tag, _encode(body)] = value
        return {entry.tag: body}
    raise _no_form(value)


def _no_form(value: object) -> Refused:
    kind = type(value)
    for plain in _PLAIN_BASES:
        if isinstance(value, plain):
            return would_be_plain(value, plain)
    return Refused(
        f"a `{kind.__qualname__}` ({short(value)}) has no stored form; pass {ACCEPTED}, or annotate it "
        "with its class (dataclass, attrs, msgspec, pydantic, TypedDict, NamedTuple, Enum)"
    )


def _careful_tree(value: object) -> Any:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Refused(f"{short(value)} contains a lone surrogate, which UTF-8 cannot say") from None
    elif type(value) is int and not -_HUGE < value < _HUGE:
        return {"$int": hex(value)}
    return value


def _items_tree(items: Any, known: Known, depth: int) -> list[Any]:
    tree: list[Any] = []
    for index, item in enumerate(items):
        try:
            tree.append(to_tree(item, known, depth + 1))
        except Refused as refused:
            raise refused.within(f"[{index}]") from None
    return tree


def _list_tree(value: list[Any], known: Known, depth: int) -> Any:
    if not known.careful and PLAIN.issuperset(map(type, value)):
        return value
    return _items_tree(value, known, depth)


def _sorted_tree(value: Any, known: Known, depth: int) -> list[Any]:
    try:
        return sorted((to_tree(item, known, depth + 1) for item in value), key=_encode)
    except Refused as refused:
        raise refused.within("[...]") from None


def _dict_tree(value: dict[Any, Any], known: Known, depth: int) -> Any:
    if not all(type(key) is str and key[:1] != "$" for key in value):
        pairs: list[Any] = []
        for key, item in value.items():
            try:
                pairs.append([to_tree(key, known, depth + 1), to_tree(item, known, depth + 1)])
            except Refused as refused:
                raise refused.within(key_step(key)) from None
        return {"$dict": pairs}
    if not known.careful and PLAIN.issuperset(map(type, value.values())):
        return value
    return _fields_tree(value, known, depth)


def _fields_tree(value: Mapping[str, Any], known: Known, depth: int) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, item in value.items():
        try:
            if known.careful:
                _careful_tree(key)
            tree[key] = to_tree(item, known, depth + 1)
        except Refused as refused:
            raise refused.within(key_step(key)) from None
    return tree


def _record_tree(value: object, known: Known, depth: int) -> Any:
    content = records.take(value)
    if isinstance(content, records.Fields):
        return _fields_tree(content.of, known, depth)
    return to_tree(content, known, depth + 1)


def _float_tree(value: float, _known: Known, _depth: int) -> Any:
    return value if math.isfinite(value) else {"$float": repr(value)}


def _text_tag(tag: str, text: Callable[[Any], object]) -> Callable[[Any, Known, int], Any]:
    return lambda value, _known, _depth: {tag: text(value)}


# The types of `PLAIN` are not in here: they are what most values are, and are met before the table.
_WRITERS: Final[dict[type, Callable[[Any, Known, int], Any]]] = {
    float: _float_tree,
    list: _list_tree,
    dict: _dict_tree,
    tuple: lambda value, known, depth: {"$tuple": _items_tree(value, known, depth)},
    set: lambda value, known, depth: {"$set": _sorted_tree(value, known, depth)},
    frozenset: lambda value, known, depth: {"$frozenset": _sorted_tree(value, known, depth)},
    bytes: _text_tag("$bytes", lambda value: base64.b64encode(value).decode()),
    datetime: _text_tag("$datetime", lambda value: value.isoformat()),
    date: _text_tag("$date", date.isoformat),
    time: _text_tag("$time", lambda value: value.isoformat()),
    timedelta: _text_tag("$timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: _text_tag("$decimal", str),
    UUID: _text_tag("$uuid", str),
    PosixPath: _text_tag("$path", str),
    WindowsPath: _text_tag("$path", str),
    PurePosixPath: _text_tag("$posixpath", str),
    PureWindowsPath: _text_tag("$windowspath", str),
}


_PLAIN_BASES: Final[tuple[type, ...]] = (str, int, *_WRITERS)


# -- JSON to values -----------------------------------------------------------------------------


def from_tree(tree: Any, known: Known, depth: int = 0) -> Any:
    """Return the value that a decoded tree says.

    Raises:
        Refused: The tree says nothing.
    """
    kind = type(tree)
    if kind is list:
        if PLAIN.issuperset(map(type, tree)):
            return tree
        if depth > 4 * DEPTH:  # a level of the value is up to three of its tree
            raise too_deep()
        return _read_items(tree, known, depth)
    if kind is not dict:
        return tree
    if depth > 4 * DEPTH:
        raise too_deep()
    for key in tree:
        if key[:1] == "$":
            return _read_tag(tree, known, depth)
    if PLAIN.issuperset(map(type, tree.values())):
        return tree
    return _read_fields(tree, known, depth)


def _read_items(tree: list[Any], known: Known, depth: int) -> list[Any]:
    items: list[Any] = []
    for index, item in enumerate(tree):
        try:
            items.append(from_tree(item, known, depth + 1))
        except Refused as refused:
            raise refused.within(f"[{index}]") from None
    return items


def _read_fields(tree: dict[str, Any], known: Known, depth: int) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, item in tree.items():
        try:
            fields[key] = from_tree(item, known, depth + 1)
        except Refused as refused:
            raise refused.within(key_step(key)) from None
    return fields


def _read_tag(tree: dict[str, Any], known: Known, depth: int) -> Any:
    tag, body = next(iter(tree.items()))
    if len(tree) != 1:
        raise Refused(f"a tag stands alone in its object, and this one has {short(list(tree))}")
    try:
        entry = tagged(tag)
        if entry is not None:
            return entry.load(body) if known.met is None else known.met[tag, _encode(body)]
        if tag in _CONTAINERS:
            return _CONTAINERS[tag](from_tree(body, known, depth + 1))
        if tag in _READERS:
            return _READERS[tag](body)
        if tag in known.classes:
            return records.build(known.classes[tag], from_tree(body, known, depth + 1))
    except Refused:
        raise
    except msgspec.ValidationError as error:
        raise explain(error) from None
    except Exception as error:  # noqa: BLE001  a constructor of the user's class may raise anything
        raise Refused(f"the stored {tag} cannot be read: {error}") from None
    raise Refused(f"the tag {short(tag)} is unknown here; the value was stored with other annotations")


def _listed(body: Any) -> list[Any]:
    if type(body) is not list:
        raise ValueError("it is no array")
    return body


_CONTAINERS: Final[dict[str, Callable[[Any], Any]]] = {
    "$": lambda body: body,  # around the tagged form of an annotated value, see `values`
    "$tuple": lambda body: tuple(_listed(body)),
    "$set": lambda body: set(_listed(body)),
    "$frozenset": lambda body: frozenset(_listed(body)),
    "$dict": lambda body: dict(_listed(body)),
}
_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    **_CONTAINERS,
    "$bytes": lambda body: base64.b64decode(body, validate=True),
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$timedelta": lambda body: timedelta(days=body[0], seconds=body[1], microseconds=body[2]),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$float": float,
    "$int": lambda body: int(body, 16),
    "$path": Path,
    "$posixpath": PurePosixPath,
    "$windowspath": PureWindowsPath,
}
