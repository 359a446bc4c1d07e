"""Exceptions to records, wherever they were raised. See `remote` for the way back.

A record is a JSON object::

    {"type": "HTTPError", "module": "shop.web", "text": "404", "args": [...], "state": {...},
     "notes": [...], "traceback": "...", "message": "of a group", "members": [records...]}

Nothing in here raises, whatever an exception's `__str__`, arguments or attributes do: a failure that
cannot be told would be a call that never ends.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Final, TypeVar

import msgspec

from everloop._core.codec import tags
from everloop._core.codec.refusal import Refused
from everloop._core.errors import TaskFailed
from everloop._core.names import module_name

_T = TypeVar("_T")
_KIB: Final = 1024
#: Set on instances by `remote`, and no part of what the user's code gave the exception.
_OURS: Final = frozenset({"type_name", "task_id", "_everloop_text", "__notes__"})


@dataclass(frozen=True, slots=True)
class Caps:
    """How much of an exception is kept, in characters and members."""

    text: int
    trace: int
    members: int
    depth: int
    values: int


_GENEROUS: Final = Caps(text=64 * _KIB, trace=64 * _KIB, members=100, depth=10, values=64 * _KIB)
# When that makes a record that no store should take, the next one is tried.
_LADDER: Final = (
    _GENEROUS,
    replace(_GENEROUS, text=16 * _KIB, members=20, depth=3, values=0),
    Caps(text=2 * _KIB, trace=8 * _KIB, members=0, depth=0, values=0),
)
_LONGEST: Final = 512 * _KIB

_encode: Final = msgspec.json.Encoder().encode


def dump_error(error: BaseException, *, skip_frames: int = 0) -> bytes:
    """Return the record of an exception; never raises.

    Args:
        error: The exception, as caught.
        skip_frames: Outermost frames of its traceback to leave out: Everloop's own.
    """
    data = b""
    for caps in _LADDER:  # pragma: no branch - what the last one makes is short enough
        data = _encode(_record(error, caps, skip_frames))
        if len(data) <= _LONGEST:
            break
    return data


def error_record(kind: type[TaskFailed], text: str) -> bytes:
    """Return the record of an error that Everloop itself reports: nothing was raised."""
    return _encode({"type": kind.__qualname__, "module": "everloop", "text": _cut(text, _GENEROUS.text)})


def _record(error: BaseException, caps: Caps, skip: int, depth: int = 0) -> dict[str, Any]:
    cls = type(error)
    inner = depth > 0
    record: dict[str, Any] = {
        "type": _clean(str(cls.__qualname__)),
        "module": _clean(module_name(str(cls.__module__))),
        "text": _cut(_text(error), caps.text if not inner else min(caps.text, 4 * _KIB)),
    }
    if bases := [_clean(f"{module_name(base.__module__)}:{base.__qualname__}") for base in cls.__mro__[1:-3]]:
        record["bases"] = bases  # so that a declared base class meets it, too
    if isinstance(error, TaskFailed) and error.type_name and cls.__module__ == "everloop":
        record["type_name"] = _clean(error.type_name)
    if caps.values:
        record |= _values(error, caps.values)
    if notes := _notes(error, caps):
        record["notes"] = notes
    trace = _traceback(error, skip)
    record["traceback"] = _cut(trace, caps.trace if not inner else min(caps.trace, 8 * _KIB))
    if isinstance(error, BaseExceptionGroup):
        record |= _members(error, caps, depth)
    return record


def _members(group: BaseExceptionGroup[BaseException], caps: Caps, depth: int) -> dict[str, Any]:
    if depth >= caps.depth:
        return {}
    kept = group.exceptions[: caps.members]
    left_out = len(group.exceptions) - len(kept)
    fields: dict[str, Any] = {
        "message": _cut(_quietly(lambda: str(group.message)) or "", 4 * _KIB),
        "members": [_record(member, caps, 0, depth + 1) for member in kept],
    }
    return fields | ({"left_out": left_out} if left_out else {})


def _values(error: BaseException, limit: int) -> dict[str, Any]:
    """Return the arguments and attributes, as far as they can be stored."""
    fields: dict[str, Any] = {}
    if not isinstance(error, BaseExceptionGroup):  # its arguments are its message and its members
        arguments = _storable(_quietly(partial(_arguments, error)), limit)
        if arguments not in (None, b"null"):
            fields["args"] = msgspec.Raw(arguments)
    state: dict[str, Any] = {}
    for name, value in (_quietly(partial(_attributes, error)) or {}).items():
        stored = _storable(value, limit)
        if stored is not None and value is not None:
            state[_clean(name)] = msgspec.Raw(stored)
            limit -= len(stored)
    return fields | ({"state": state} if state else {})


def _arguments(error: BaseException) -> list[Any]:
    if isinstance(error, OSError):
        return list(OSError.__reduce__(error)[1])  # with the file names, which `args` leaves out
    return list(error.args)


def _attributes(error: BaseException) -> dict[str, Any]:
    state = {name: value for name, value in vars(error).items() if is_users(name)}
    if isinstance(error, ImportError):
        state |= {"name": error.name, "path": error.path}
    elif isinstance(error, NameError | AttributeError):
        state["name"] = error.name
    return state


def is_users(name: str) -> bool:
    """Tell whether an attribute of an exception came from the user's code."""
    return name not in _OURS and not name.startswith("__")


def _storable(value: object, limit: int) -> bytes | None:
    try:
        data = tags.dump(value)
    except Refused:
        return None
    return data if len(data) <= limit else None


def _notes(error: BaseException, caps: Caps) -> list[str]:
    notes = _quietly(lambda: [str(note) for note in getattr(error, "__notes__", ())[:20]])
    return [_cut(note, min(caps.text, 4 * _KIB)) for note in notes or ()]


def _text(error: BaseException) -> str:
    text = _quietly(lambda: str(error))
    return text if text is not None else f"<{type(error).__qualname__}, whose __str__ raised>"


def _traceback(error: BaseException, skip: int) -> str:
    text = _quietly(lambda: _format(error, _skip(error.__traceback__, skip)))
    if text is None:
        text = _quietly(lambda: "".join(traceback.format_tb(error.__traceback__, limit=50)))
    return text or "<the traceback could not be formatted>"


def _skip(trace: TracebackType | None, frames: int) -> TracebackType | None:
    while trace is not None and frames > 0:
        trace, frames = trace.tb_next, frames - 1
    return trace


def _format(error: BaseException, trace: TracebackType | None) -> str:
    shown = traceback.TracebackException(type(error), error, trace, limit=None, compact=True)
    return "".join(shown.format())


def _quietly(ask: Callable[[], _T]) -> _T | None:
    """Ask the user's object something; None when it raises, whatever it raises."""
    try:
        return ask()
    except BaseException:  # noqa: BLE001  also a SystemExit from a __str__: it is no wish to exit
        return None


def _clean(text: str) -> str:
    """Return `text` without lone surrogates, which no store takes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _cut(text: str, limit: int) -> str:
    """Return head and tail of a text that is longer than `limit` characters."""
    text = _clean(str(text))
    if len(text) <= limit:
        return text
    head = limit // 4
    return f"{text[:head]}\n… {len(text) - limit} characters left out …\n{text[-(limit - head) :]}"
