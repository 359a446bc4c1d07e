"""A function's parameters and annotations, as far as they can be known."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable
from contextlib import suppress
from inspect import Parameter
from typing import Any

from everloop._core.codec import hints
from everloop._core.codec.refusal import short


def parameters_of(fn: Callable[..., Any]) -> list[Parameter]:
    """Return the parameters; an annotation that names what does not exist is no reason to fail."""
    if sys.version_info >= (3, 14):
        import annotationlib

        signature = inspect.signature(fn, annotation_format=annotationlib.Format.FORWARDREF)
    else:
        signature = inspect.signature(fn)
    return list(signature.parameters.values())


def resolve_hints(fn: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations by parameter name, and `return`; those that do not resolve are left out."""
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except Exception:  # noqa: BLE001  an annotation is code: a NameError, or anything at all
        return _resolve_one_by_one(inspect.unwrap(fn))


class _Annotated:
    """Something for `get_type_hints` to look at: one annotation."""

    def __init__(self, name: str, annotation: Any) -> None:
        self.__annotations__ = {name: annotation}


def _resolve_one_by_one(fn: Callable[..., Any]) -> dict[str, Any]:
    resolved: dict[str, Any] = {}
    scope = getattr(fn, "__globals__", {})
    local = _closure(fn)
    for name, annotation in _annotations(fn).items():
        # A parameter whose annotation does not resolve is untyped.
        with suppress(Exception):
            resolved |= typing.get_type_hints(_Annotated(name, annotation), scope, local, include_extras=True)
    return resolved


def _annotations(fn: Callable[..., Any]) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(fn, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(fn)


def _closure(fn: Callable[..., Any]) -> dict[str, Any]:
    """Return the variables of enclosing functions that this one uses: a class may be among them."""
    if not isinstance(fn, types.FunctionType) or fn.__closure__ is None:
        return {}
    found: dict[str, Any] = {}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__, strict=True):
        with suppress(ValueError):  # not assigned yet
            found[name] = cell.cell_contents
    return found


def write_signature(name: str, parameters: Iterable[Parameter]) -> str:
    """Return `fetch(url: str, depth: int = 0)`, as short as it stays readable."""
    words: list[str] = []
    last: Any = None
    for parameter in parameters:
        if last is Parameter.POSITIONAL_ONLY and parameter.kind is not last:
            words.append("/")
        if parameter.kind is Parameter.KEYWORD_ONLY and last not in (
            Parameter.KEYWORD_ONLY,
            Parameter.VAR_POSITIONAL,
        ):
            words.append("*")
        words.append(_write_parameter(parameter))
        last = parameter.kind
    if last is Parameter.POSITIONAL_ONLY:
        words.append("/")
    return f"{name}({', '.join(words)})"


def _write_parameter(parameter: Parameter) -> str:
    text = str(parameter.replace(annotation=Parameter.empty, default=Parameter.empty))  # with its stars
    typed = parameter.annotation is not Parameter.empty
    if typed:
        text += f": {hints.describe(parameter.annotation)}"
    if parameter.default is Parameter.empty:
        return text
    return f"{text}{' = ' if typed else '='}{short(parameter.default, 40)}"
