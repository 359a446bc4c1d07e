"""Does a value come back as it went? Stricter than `==` in types, more lenient in nan."""

from __future__ import annotations

from datetime import datetime, time
from decimal import Decimal
from math import isnan
from typing import Any, Final, cast

from everloop._core.codec import records
from everloop._core.codec.known import registered
from everloop._core.codec.refusal import DEPTH, Refused, key_step, short, too_deep, would_be_plain

_ATOMS: Final = frozenset({str, int, bool, float, type(None), bytes})


def require_same(went: Any, came: Any, depth: int = 0) -> None:
    """Refuse `went` when `came` is not the same, naming the first place where they differ.

    An int may come back as the equal float: that is what its annotation asked for.
    """
    kind = type(went)
    if kind is not type(came):
        _require_same_kind(went, came)
    elif depth > DEPTH:
        raise too_deep()
    elif kind is list or kind is tuple:
        _require_same_items(went, came, depth)
    elif kind is dict:
        _require_same_dicts(went, came, depth)
    elif kind is set or kind is frozenset:
        _require_same_sets(went, came, depth)
    elif kind is float:
        if went != came and not (isnan(went) and isnan(came)):
            raise _changed(went, came)
    else:
        _require_same_content(went, came, depth)


def _require_same_content(went: Any, came: Any, depth: int) -> None:
    kind: type[Any] = type(went)
    if records.is_pydantic(kind):
        _require_same_dicts(_pydantic_state(went), _pydantic_state(came), depth)
    elif (names := records.field_names(kind)) is not None:
        missing = object()
        for name in names:
            try:
                require_same(getattr(went, name, missing), getattr(came, name, missing), depth + 1)
            except Refused as refused:
                raise refused.within(f".{name}") from None
    elif not _same_leaf(went, came):
        raise _changed(went, came)


def _require_same_kind(went: Any, came: Any) -> None:
    kind = type(went)
    if kind is int and type(came) is float:
        if went == came:
            return
    elif isinstance(went, type(came)) and kind is not bool:
        raise would_be_plain(went, type(came))
    expected = type(came).__qualname__
    raise Refused(f"expected `{expected}`, got `{kind.__qualname__}` ({short(went)})", wrong_type=True)


def _require_same_items(went: Any, came: Any, depth: int) -> None:
    if len(went) != len(came):
        raise _changed(went, came)
    kinds = list(map(type, went))
    if _ATOMS.issuperset(kinds) and kinds == list(map(type, came)) and went == came:
        return
    for index, (a, b) in enumerate(zip(went, came, strict=True)):
        try:
            require_same(a, b, depth + 1)
        except Refused as refused:
            raise refused.within(f"[{index}]") from None


def _require_same_dicts(went: dict[Any, Any], came: dict[Any, Any], depth: int) -> None:
    if len(went) != len(came):
        raise _changed(went, came)
    for (key, a), (other, b) in zip(went.items(), came.items(), strict=True):
        try:
            require_same(key, other, depth + 1)
            require_same(a, b, depth + 1)
        except Refused as refused:
            raise refused.within(key_step(key)) from None


def _require_same_sets(went: Any, came: Any, depth: int) -> None:
    if len(went) != len(came):
        raise _changed(went, came)
    twins = {item: item for item in came}
    strays: list[Any] = []
    for item in went:
        if item in twins:
            require_same(item, twins.pop(item), depth + 1)
        else:
            strays.append(item)
    for item in strays:  # nan equals nothing: look for its like among what is left
        for other in twins:
            if _is_same(item, other, depth + 1):
                del twins[other]
                break
        else:
            raise _changed(went, came)


def _is_same(went: Any, came: Any, depth: int) -> bool:
    try:
        require_same(went, came, depth)
    except Refused:
        return False
    return True


def _pydantic_state(model: Any) -> dict[str, Any]:
    state = dict(sorted(vars(model).items()))
    return state | {
        name: value
        for name in ("__pydantic_extra__", "__pydantic_private__")
        if (value := getattr(model, name, None)) is not None
    }


def _same_leaf(went: Any, came: Any) -> bool:
    if isinstance(went, datetime | time):
        # Not `==`: it never holds between two zones in the hour that a clock change repeats.
        other = cast("datetime | time", came)
        return went.replace(tzinfo=None, fold=0) == other.replace(tzinfo=None, fold=0) and (
            went.utcoffset() == other.utcoffset()
        )
    if isinstance(went, Decimal):
        return str(went) == str(came)  # a signalling nan raises when compared
    entry = registered(type(went))
    if entry is not None:
        return bool(entry.dump(went) == entry.dump(came))
    return bool(went == came)


def _changed(went: Any, came: Any) -> Refused:
    return Refused(f"{short(went)} would come back as {short(came)}")
