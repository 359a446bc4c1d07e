"""How the values of one annotation travel, checked when they leave.

An annotated value is written by msgspec as plain JSON when reading that gives it back. Otherwise
(nan in a float, a tuple under `Any`, a set, whose order must not depend on the process) it is
written with tags, as `{"$": ...}`; a value without annotation is always written with tags.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from math import isfinite
from pathlib import PurePath
from typing import Annotated, Any, Final, cast, get_args, get_origin

import msgspec

from everloop._core.codec import hints, records, tags
from everloop._core.codec.compare import require_same
from everloop._core.codec.known import Known, registered
from everloop._core.codec.reading import decode
from everloop._core.codec.refusal import Refused, explain, key_step, short
from everloop._core.errors import NotStorable


def _to_json(value: Any) -> Any:
    """Give msgspec what it can write of a value that it does not know."""
    if isinstance(value, PurePath):
        return str(value)
    if records.is_pydantic(type(value)):
        return value.model_dump(mode="json", round_trip=True, by_alias=True)
    raise NotImplementedError  # msgspec's word for "no"


def _from_json(hint: Any, data: Any) -> Any:
    """Give back what `_to_json` wrote, for msgspec; `data` may also be the value itself."""
    cls = get_origin(hint) or hint
    if isinstance(cls, type):
        if isinstance(data, cls):
            return data
        if issubclass(cls, PurePath) and isinstance(data, str):
            return cls(data)
        if records.is_pydantic(cls):
            return cast(Any, cls).model_validate(data)
    raise ValueError(f"Expected `{hints.describe(hint)}`, got `{type(data).__qualname__}`")


_encode: Final = msgspec.json.Encoder(enc_hook=_to_json).encode


class Shape:
    """How values of one annotation travel.

    Args:
        annotation: The annotation, resolved; without it, JSON with tags.

    Example:
        >>> Shape(tuple[int, ...]).dump((1, 2))
        b'[1,2]'
        >>> Shape(tuple[int, ...]).load(b"[1,2]")
        (1, 2)
        >>> Shape().dump((1, 2))
        b'{"$tuple":[1,2]}'
    """

    def __init__(self, annotation: Any = Any) -> None:
        self.hint = hints.strip(annotation)
        #: Types whose instances need no check: JSON has them, and the annotation allows them.
        self.exact = hints.exact_types(self.hint)
        # Invariant: None when msgspec alone cannot say what the annotation allows.
        self._decode = _decoder(self.hint)

    @cached_property
    def _known(self) -> Known:
        return hints.known_classes(self.hint)

    @cached_property
    def _has_sets(self) -> bool:
        return any((get_origin(part) or part) in (set, frozenset) for part in hints.parts(self.hint))

    @cached_property
    def _inner(self) -> tuple[Shape, ...]:
        """The shapes of a union's members, or of what a container holds."""
        return tuple(Shape(part) for part in get_args(self.hint) if part is not Ellipsis)

    def dump(self, value: object, path: str = "$") -> bytes:
        """Return the value as JSON, having checked that it comes back.

        Raises:
            NotStorable: It would not; the message names the path of what is at fault.
        """
        try:
            return self.encode(value)
        except Refused as refused:
            raise NotStorable(f"`{refused.where(path)}` cannot be stored: {refused.text}") from None

    def load(self, data: bytes | str) -> Any:
        """Return the value that `dump` wrote.

        Raises:
            NotStorable: The data is no such value.
        """
        try:
            return self.decode(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
        except Refused as refused:
            raise NotStorable(f"the stored `{refused.where('$')}` cannot be read: {refused.text}") from None

    def encode(self, value: Any) -> bytes:
        """Do what `dump` does, but raise `Refused`."""
        kind = type(value)
        if kind in self.exact and (kind is not float or isfinite(value)):
            try:
                return _encode(value)
            except ValueError:  # a lone surrogate, or an int of thousands of digits
                pass
        elif self._decode is not None and not self._has_sets:
            data = self._encode_plain(value, self._decode)
            if data is not None:
                return data
        return self._encode_tagged(value)

    @staticmethod
    def _encode_plain(value: Any, decode: Callable[[bytes], Any]) -> bytes | None:
        try:
            data = _encode(value)
            require_same(value, decode(data))
        except Exception:  # noqa: BLE001  also from the checks of a user's class
            # It may come back with tags; if it does not, the reason is clearer there.
            return None
        return None if data.startswith(b'{"$') else data

    def _encode_tagged(self, value: Any) -> bytes:
        if hints.is_open(self.hint):
            return tags.dump(value)
        self.fit(value)
        known = self._known.checking()
        data = tags.dump(value, known)
        require_same(value, self.fit(tags.from_tree(decode(data), known)))
        return data if self._decode is None else b'{"$":' + data + b"}"

    def decode(self, data: bytes) -> Any:
        """Do what `load` does, but raise `Refused`."""
        tree = None
        if self._decode is None or b"{" in data:
            tree = decode(data)
        if self._decode is None or data.startswith(b'{"$'):
            return self.fit(tags.from_tree(tree, self._known))
        try:
            return self._decode(data)
        except Exception as error:  # noqa: BLE001  a class's own checks may raise anything
            raise explain(error) from None

    def fit(self, value: Any) -> Any:
        """Return what the annotation makes of a value; refuse what it does not allow."""
        if self._decode is not None:
            try:
                return msgspec.convert(value, self.hint, dec_hook=_from_json)
            except Exception as error:  # noqa: BLE001  the same
                raise self._explain(error, value) from None
        if hints.is_open(self.hint):
            return value
        if hints.members(self.hint):
            return self._fit_member(value)
        origin = get_origin(self.hint) or self.hint
        if isinstance(origin, type) and not isinstance(value, origin):
            raise _wrong_type(self.hint, value)
        self._fit_items(value)
        return value

    def _explain(self, error: Exception, value: Any) -> Refused:
        refused = explain(error)
        if not refused.wrong_type or refused.where("") or " in `" in refused.text:
            return refused
        if get_origin(self.hint) is Annotated and ", got " not in refused.text:
            refused.text += f", got {short(value)}"  # a constraint: it says more than the type
            return refused
        return _wrong_type(self.hint, value)

    def _fit_member(self, value: Any) -> Any:
        for shape in sorted(self._inner, key=lambda shape: type(value) not in shape.exact):
            try:
                fitted = shape.fit(value)
                require_same(value, fitted)
            except Refused:
                continue
            return fitted
        raise _wrong_type(self.hint, value)

    def _fit_items(self, value: Any) -> None:
        shapes = self._inner
        if isinstance(value, dict) and len(shapes) == 2:
            for key, item in value.items():
                _fit_part(shapes[0], key, key_step(key))
                _fit_part(shapes[1], item, key_step(key))
        elif isinstance(value, str | list | tuple | set | frozenset) and shapes:
            if get_origin(self.hint) is not tuple or Ellipsis in get_args(self.hint):
                shapes *= len(value)
            if len(value) != len(shapes):
                raise _wrong_type(self.hint, value)
            for index, (shape, item) in enumerate(zip(shapes, value, strict=True)):
                _fit_part(shape, item, f"[{index}]")


def _fit_part(shape: Shape, value: Any, step: str) -> None:
    try:
        require_same(value, shape.fit(value))
    except Refused as refused:
        raise refused.within(step) from None


def _decoder(hint: Any) -> Callable[[bytes], Any] | None:
    """Return msgspec's decoder, when msgspec alone can say what `hint` allows."""
    if hints.is_open(hint):
        return None
    if any(hints.abstract(part) for part in hints.parts(hint, into_fields=False)):
        return None
    classes = (get_origin(part) or part for part in hints.parts(hint))
    if any(isinstance(cls, type) and registered(cls) for cls in classes):
        return None
    try:
        return msgspec.json.Decoder(hint, dec_hook=_from_json).decode
    except Exception:  # noqa: BLE001  a union of two dataclasses, a name in a field that does not resolve, ...
        return None


def _wrong_type(hint: Any, value: Any) -> Refused:
    expected, got = hints.describe(hint), type(value).__qualname__
    return Refused(f"expected `{expected}`, got `{got}` ({short(value)})", wrong_type=True)
