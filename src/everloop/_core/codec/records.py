"""Instances of the users' classes, taken apart and put together: dataclasses, attrs, msgspec, pydantic.

Nothing is imported to look: a class says what it is by what it carries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import msgspec


@dataclass(frozen=True, slots=True)
class Fields:
    """The content of a record, by the names of its fields."""

    of: Mapping[str, Any]


def is_pydantic(cls: type) -> bool:
    """Tell a pydantic model's class (not a pydantic dataclass: msgspec knows dataclasses)."""
    return hasattr(cls, "__pydantic_validator__") and hasattr(cls, "model_validate")


def field_names(cls: type) -> tuple[str, ...] | None:
    """Return the names of a record class's fields, or None when it is no record class."""
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    if issubclass(cls, msgspec.Struct):
        return cls.__struct_fields__
    if hasattr(cls, "__attrs_attrs__"):
        return tuple(attribute.name for attribute in cast(Any, cls).__attrs_attrs__)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return tuple(cast(Any, cls)._fields)
    return None


def is_record(cls: type) -> bool:
    """Tell whether `take` and `build` know this class."""
    return issubclass(cls, Enum) or is_pydantic(cls) or field_names(cls) is not None


def take(value: object) -> object:
    """Return the content of a record: `Fields`, or an enum's value."""
    cls = type(value)
    if isinstance(value, Enum):
        return value.value
    if is_pydantic(cls):
        return Fields(cast(Any, value).model_dump(round_trip=True, by_alias=True))
    names = field_names(cls) or ()
    return Fields({name: getattr(value, name) for name in names if hasattr(value, name)})


def build(cls: type, content: Any) -> Any:
    """Return an instance of `cls` with this content, checked as the class checks it.

    Raises:
        Exception: The class refuses it; its own checks may raise anything.
    """
    if issubclass(cls, Enum):
        return cls(content)
    if is_pydantic(cls):
        return cast(Any, cls).model_validate(content)
    if issubclass(cls, tuple) or (issubclass(cls, msgspec.Struct) and cls.__struct_config__.array_like):
        return cls(**content)
    return _build_fields(cls, content)


def _build_fields(cls: type, content: Mapping[str, Any]) -> Any:
    names: Mapping[str, str] = {}
    if issubclass(cls, msgspec.Struct):
        names = dict(zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True))
    try:
        made: Any = msgspec.convert({names.get(key, key): item for key, item in content.items()}, cls)
    except TypeError:
        # An annotation of a field is beyond msgspec (a union of two dataclasses): the class decides.
        return cls(**content)
    if all(type(getattr(made, key, None)) is type(item) for key, item in content.items()):
        return made
    try:
        # A field annotated `Sequence` holds a tuple, and msgspec made it a list.
        return cls(**content)
    except TypeError:  # a field is no parameter, or is called otherwise there
        return made
