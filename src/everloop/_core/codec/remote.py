"""Records to exceptions: what a task raised, raised again where it is awaited.

The exception is of a class made for it, a subclass of `TaskFailed` and of the class that was raised,
so that `except ValueError` and `except TaskFailed` both hold. Only builtin, declared and Everloop's
own classes are met; no module is imported because a record names it.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, cast

from everloop._core import errors as everloop_errors
from everloop._core.codec import tags
from everloop._core.codec.errors import is_users
from everloop._core.codec.known import NOTHING_KNOWN
from everloop._core.codec.reading import decode
from everloop._core.codec.refusal import Refused, short
from everloop._core.errors import EverloopError, TaskFailed
from everloop._core.names import module_name

# asyncio gives these a meaning of their own; raised out of an `await`, they would do something else.
_SPECIAL: Final = (StopIteration, StopAsyncIteration)
_EVERLOOP: Final[dict[str, type[EverloopError]]] = {
    name: value
    for name, value in vars(everloop_errors).items()
    if isinstance(value, type) and issubclass(value, EverloopError)
}

Raises = Mapping[str, type[BaseException]] | Iterable[type[BaseException]]


class RemoteTraceback(Exception):
    """The traceback of an exception where it was raised, as text. It is the `__cause__`."""

    __module__ = "everloop"

    def __init__(self, text: str) -> None:
        super().__init__(text)

    def __str__(self) -> str:
        return str(self.args[0])


def load_error(data: bytes, raises: Raises = (), *, task_id: str = "") -> TaskFailed:
    """Return the exception that a record tells of; never raises.

    Args:
        data: What `dump_error` or `error_record` wrote.
        raises: Declared classes; a class, or the nearest of its bases, is met by module and qualified name.
        task_id: The id of the call that failed.
    """
    classes = raises.values() if isinstance(raises, Mapping) else raises
    declared = {(module_name(cls.__module__), cls.__qualname__): cls for cls in classes}
    try:
        return _load(decode(data), declared, task_id)
    except (Refused, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        why = error.text if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
        failure = TaskFailed(f"the record of the failure cannot be read: {why}")
        failure.task_id = task_id
        return failure


def _load(record: Any, declared: Mapping[tuple[str, str], type[BaseException]], task_id: str) -> TaskFailed:
    if not isinstance(record, dict):
        raise Refused(f"it is {short(record)}, and no object")
    cls = _find_class(record, declared)
    error: TaskFailed | None = None
    if cls is not None and issubclass(cls, TaskFailed):
        error = cls(_string(record, "text"))
        error.type_name = _string(record, "type_name") or _string(record, "type")
    elif cls is not None:
        error = _rebuild(cls, record, declared, task_id)
    if error is None:
        error = _plain(record)
    error.task_id = task_id
    for note in _list(record, "notes"):
        error.add_note(str(note))
    if left_out := record.get("left_out"):
        error.add_note(f"{left_out} more exceptions of this group were not kept")
    if trace := _string(record, "traceback"):
        error.__cause__ = RemoteTraceback(trace)
    return error


def _plain(record: dict[str, Any]) -> TaskFailed:
    name, text = _string(record, "type"), _string(record, "text")
    error = TaskFailed(f"{name}: {text}" if name and text else name or text)
    error.type_name = name
    return error


def _find_class(
    record: dict[str, Any], declared: Mapping[tuple[str, str], type[BaseException]]
) -> type[BaseException] | None:
    module, name = _string(record, "module"), _string(record, "type")
    found: Any = declared.get((module, name)) or _nearest(record, declared)
    if found is None and module == "builtins":
        found = vars(builtins).get(name)
    if found is None and module == "everloop":
        found = _EVERLOOP.get(name)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        return None
    if issubclass(found, BaseExceptionGroup):
        return found if record.get("members") else None
    # What is no Exception (SystemExit, KeyboardInterrupt) would end the process that only awaits.
    return found if issubclass(found, Exception) and not issubclass(found, _SPECIAL) else None


def _nearest(
    record: dict[str, Any], declared: Mapping[tuple[str, str], type[BaseException]]
) -> type[BaseException] | None:
    """Return the first declared class among the bases of the raised one."""
    for base in _list(record, "bases"):
        module, _, name = str(base).partition(":")
        if (module, name) in declared:
            return declared[module, name]
    return None


def _rebuild(
    cls: type[BaseException], record: dict[str, Any], declared: Any, task_id: str
) -> TaskFailed | None:
    """Return an instance with the remote arguments and attributes; None when the class will not have it."""
    text, name = _string(record, "text"), _string(record, "type")
    if issubclass(cls, BaseExceptionGroup):
        members = [_load(member, declared, task_id) for member in _list(record, "members")]
        args: tuple[Any, ...] = (_string(record, "message"), members)
    else:
        args = _values(record, "args", (text,))
    state = dict(_values(record, "state", {}))
    return _make(cls, args, text, name, state)


def _values(record: dict[str, Any], name: str, default: Any) -> Any:
    if name not in record:
        return default
    try:
        value = tags.from_tree(record[name], NOTHING_KNOWN)
    except Refused:
        return default
    return tuple(value) if isinstance(value, list) else value


def _make(
    cls: type[BaseException], args: tuple[Any, ...], text: str, name: str, state: dict[str, Any]
) -> TaskFailed | None:
    """Return an instance of the class made for `cls`, without running the user's `__init__`.

    That takes what it likes and passes on something else: only `args` and the attributes are known.
    """
    # MemoryError's own `__new__` takes from a free list, and refuses to make a subclass of two.
    builtin = next(b for b in cls.__mro__ if b.__module__ == "builtins" and b is not MemoryError)
    try:
        error = cast("TaskFailed", cast(Any, builtin).__new__(_class_for(cast(Any, cls)), *args))
        cast(Any, builtin).__init__(error, *args)
        for key, value in state.items():
            if is_users(key):
                object.__setattr__(error, key, value)
    except (TypeError, ValueError, AttributeError):
        # The class cannot be combined or filled: UnicodeDecodeError without its bytes, a final class.
        return None
    error.type_name = name
    vars(error)["_everloop_text"] = text
    return error


@lru_cache(maxsize=512)
def _class_for(cls: type[BaseException]) -> type[TaskFailed]:
    made = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": f"`{cls.__qualname__}`, raised by a task.",
        "__str__": lambda self: vars(self).get("_everloop_text", ""),
        "__reduce__": lambda self: _reduce(self, cls),
    }
    return cast("type[TaskFailed]", type(cls.__name__, (TaskFailed, cls), made))


def _reduce(error: TaskFailed, cls: type[BaseException]) -> tuple[Any, ...]:
    """Let copies and other processes make it again: the class itself is not importable."""
    args = _arguments_of(error)
    state = dict(vars(error))
    return _make, (cls, args, str(error), error.type_name, {}), state


def _arguments_of(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, OSError):
        return tuple(cast(Any, OSError.__reduce__(error))[1])
    return error.args


def _string(record: dict[str, Any], name: str) -> str:
    value = record.get(name, "")
    return value if isinstance(value, str) else str(value)


def _list(record: dict[str, Any], name: str) -> list[Any]:
    value = record.get(name, [])
    if not isinstance(value, list):
        raise TypeError(f"`{name}` is {short(value)}")
    return value
