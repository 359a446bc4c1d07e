"""What an annotation says about how its values travel."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Final, ParamSpecArgs, ParamSpecKwargs, TypeVar, Union, get_args, get_origin

from everloop._core.codec import records
from everloop._core.codec.known import Known

_UNIONS: Final = (Union, types.UnionType)
_WRAPPERS: Final = (typing.Final, typing.ClassVar, typing.Required, typing.NotRequired)
# `type X = ...` exists from Python 3.12 on.
_ALIAS: Final[Any] = getattr(typing, "TypeAliasType", ())
_OPEN: Final = (Any, object, inspect.Parameter.empty, typing.NoReturn, typing.Never)
_EXACT: Final[frozenset[type]] = frozenset({str, int, float, bool, type(None)})


def strip(hint: Any) -> Any:
    """Return the hint under its names and wrappers: `type X = int`, `NewType`, `Final[int]`."""
    while True:
        if isinstance(hint, _ALIAS):
            hint = hint.__value__
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif get_origin(hint) in _WRAPPERS:
            hint = get_args(hint)[0]
        elif hint is None:
            return type(None)
        else:
            return hint


def is_open(hint: Any) -> bool:
    """Tell whether the hint says nothing: `Any`, `object`, a type variable, nothing at all."""
    # `**kwargs: Unpack[SomeTypedDict]` says something per name; what it says is not looked at.
    return (
        any(hint is word for word in _OPEN)
        or isinstance(hint, TypeVar | ParamSpecArgs | ParamSpecKwargs | str | typing.ForwardRef)
        or get_origin(hint) is typing.Unpack
    )


def exact_types(hint: Any) -> frozenset[type]:
    """Return the types whose instances are stored by this hint as JSON has them, unchecked."""
    hint = strip(hint)
    if is_open(hint):
        return _EXACT
    if get_origin(hint) in _UNIONS:
        members = [exact_types(member) for member in get_args(hint)]
        return frozenset[type]().union(*members) if all(members) else frozenset()
    return _EXACT & {hint} if isinstance(hint, type) else frozenset()


def members(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, else nothing."""
    return get_args(hint) if get_origin(hint) in _UNIONS else ()


def abstract(hint: Any) -> type | None:
    """Return the class of `collections.abc` that the hint names, as in `Sequence[int]`."""
    origin = get_origin(hint) or hint
    return origin if isinstance(origin, type) and origin.__module__ == "collections.abc" else None


def parts(hint: Any, *, into_fields: bool = True) -> Iterator[Any]:
    """Give every hint inside a hint, itself first; also those of the fields of record classes."""
    seen: dict[int, Any] = {}  # keeps what it has seen alive: an id is not given twice
    stack = [hint]
    while stack:
        part = strip(stack.pop())
        if id(part) in seen:
            continue
        seen[id(part)] = part
        yield part
        origin = get_origin(part)
        arguments = get_args(part)[:1] if origin is Annotated else get_args(part)
        stack.extend(argument for argument in arguments if not isinstance(argument, str | int | bytes))
        cls = origin if isinstance(origin, type) else part
        if into_fields and isinstance(cls, type):
            stack.extend(_field_hints(cls))


def _field_hints(cls: type) -> list[Any]:
    if not (records.is_record(cls) or typing.is_typeddict(cls)):
        return []
    try:
        return list(typing.get_type_hints(cls).values())
    except Exception:  # noqa: BLE001  of a name that is gone, or whatever an annotation evaluates to
        return []


def known_classes(hint: Any) -> Known:
    """Return the record classes that the hint names, directly or in fields."""
    known = Known()
    for part in parts(hint):
        cls = get_origin(part) or part
        if isinstance(cls, type) and records.is_record(cls):
            known.add(cls)
    return known


def describe(hint: Any) -> str:
    """Return the hint as a reader of the code would write it."""
    if hint is type(None) or hint is None:
        return "None"
    if isinstance(hint, str):
        return hint
    if union := members(hint):
        return " | ".join(describe(member) for member in union)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return describe(arguments[0])
    if isinstance(origin, type) and arguments and not isinstance(arguments[0], list):
        inner = ", ".join("..." if argument is ... else describe(argument) for argument in arguments)
        return f"{origin.__qualname__}[{inner}]"
    return hint.__qualname__ if isinstance(hint, type) else str(hint).replace("typing.", "")
