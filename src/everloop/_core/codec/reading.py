"""Stored JSON to plain Python values, whatever the bytes are."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from everloop._core.codec.refusal import Refused, short, too_deep

_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


def decode(data: bytes) -> Any:
    """Return what the JSON says.

    Raises:
        Refused: It is no JSON, nests too deep, or says one key twice in one object.
    """
    try:
        tree = _decode(data)
        if b"{" in data and len(_encode(tree)) != len(data):
            # What we wrote is written back the same, unless a key was lost to its double.
            json.loads(data, object_pairs_hook=_unique)
    except RecursionError:
        raise too_deep() from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise Refused(f"it is no valid JSON: {error}") from None
    return tree


def _unique(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f"the key {short(key)} stands twice in one object")
        seen.add(key)
