"""The arguments of a task function: bound and checked at the call, handed to the body by a worker.

They are stored as `[[positional...],{keyword...}]`: what was given, in the order of the parameters,
positional as far as there is no gap. Defaults are not written, so that a later default applies.
Those of a durable callback are `[[positional...],{keyword...},1]`: one more positional argument, the
finished task, is added when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from inspect import Parameter
from math import isfinite
from typing import Any, Final, Literal

import msgspec

from everloop._core.codec.reading import decode
from everloop._core.codec.refusal import Refused, short
from everloop._core.codec.signatures import parameters_of, resolve_hints, write_signature
from everloop._core.codec.values import Shape
from everloop._core.errors import ArgumentError, FunctionError, NotStorable
from everloop._core.text import near_miss

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(tuple[list[Any], dict[str, Any]]).decode


class _Stored(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    positional: list[msgspec.Raw]
    keywords: dict[str, msgspec.Raw]
    more: Literal[0, 1] = 0


_decode_raw: Final = msgspec.json.Decoder(_Stored).decode
_NO_KEYWORDS: Final[dict[str, Any]] = {}
#: How many combinations of exact types are remembered per function.
_REMEMBERED: Final = 128

#: Positional arguments in order, and arguments by name, each with the parameter that takes it.
_Arranged = tuple[list[tuple[Parameter, Any]], dict[str, tuple[Parameter, Any]]]


class Arguments:
    """What a task function takes, compiled once.

    Args:
        fn: The function. Its annotations are resolved at the first call.
        injected: Names of parameters that Everloop fills in itself.

    Example:
        >>> def fetch(url: str, depth: int = 0) -> None: ...
        >>> Arguments(fetch).bind(("https://example.org",), {})
        b'[["https://example.org"],{}]'
        >>> Arguments(fetch).load(b'[["https://example.org"],{}]')
        (('https://example.org',), {})
    """

    def __init__(self, fn: Callable[..., Any], *, injected: Collection[str] = ()) -> None:
        self.fn = fn
        self.name: str = getattr(fn, "__name__", type(fn).__name__)
        self._injected = frozenset(injected)
        self._slots: list[Parameter] = []  # those that may be given by position
        self._named: dict[str, Parameter] = {}  # those that may be given by name
        self._rest: Parameter | None = None  # *args
        self._extra: Parameter | None = None  # **kwargs
        parameters = parameters_of(fn)
        self._sort(parameters)
        self.signature = write_signature(self.name, [p for p in parameters if p.name not in self._injected])
        # Invariant: holds only types that every parameter in its place stores unchecked. The value
        # says whether a float is among them: those must be looked at, JSON has no nan.
        self._exact: dict[tuple[type, ...], bool] = {}

    def _sort(self, parameters: list[Parameter]) -> None:
        after = ""
        for parameter in parameters:
            if parameter.name in self._injected:
                after = after or parameter.name
            elif parameter.kind is Parameter.VAR_KEYWORD:
                self._extra = parameter
            elif parameter.kind is Parameter.KEYWORD_ONLY:
                self._named[parameter.name] = parameter
            elif not after and parameter.kind is Parameter.VAR_POSITIONAL:
                self._rest = parameter
            elif not after:
                self._slots.append(parameter)
                if parameter.kind is not Parameter.POSITIONAL_ONLY:
                    self._named[parameter.name] = parameter
            elif parameter.kind is Parameter.POSITIONAL_OR_KEYWORD:
                # A body can only be given it by name: its place is after an injected one.
                self._named[parameter.name] = parameter
            else:
                raise FunctionError(
                    f"{self.name}(): `{parameter}` stands after the injected `{after}`, where nothing can "
                    f"be passed to it; make `{after}` the last parameter"
                )

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return resolve_hints(self.fn)

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        given = [*self._slots, *self._named.values(), self._rest, self._extra]
        return {p.name: Shape(self._hints.get(p.name, Any)) for p in given if p is not None}

    @cached_property
    def result(self) -> Shape:
        """The shape of what the function returns."""
        return Shape(self._hints.get("return", Any))

    # -- to bytes -------------------------------------------------------------------------------

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Return the stored form of these arguments.

        Raises:
            ArgumentError: They do not fit the signature.
            NotStorable: One of them would not come back equal.
        """
        if not kwargs:
            has_float = self._exact.get(tuple(map(type, args)))
            if has_float is False or (has_float and _all_finite(args)):
                try:
                    return _encode((args, _NO_KEYWORDS))
                except ValueError:
                    pass  # a lone surrogate, or an int of thousands of digits: below says which
        arranged = self._arrange(args, kwargs)
        data = self._dump(arranged)
        if not arranged[1]:
            self._remember(arranged[0])
        return data

    def bind_before_last(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Return the stored form of all arguments but the last positional one.

        `load` gives them as they are: the caller adds the last.

        Raises:
            ArgumentError: They do not fit the signature, or leave no place for one more.
            NotStorable: One of them would not come back equal.
        """
        data = self._dump(self._arrange(args, kwargs, more=1))
        return data[:-1] + b",1]"

    def _arrange(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, more: int = 0) -> _Arranged:
        """Give each argument to its parameter, as Python would; `more` positional ones come later."""
        if len(args) > len(self._slots) and self._rest is None:
            raise self._wrong(f"takes {_count(self._slots)} but {len(args)} {_were(len(args))} given")
        keywords = self._arrange_keywords(len(args), kwargs)
        positional = list(zip(self._slots, args, strict=False))
        for parameter in self._slots[len(args) :]:
            if keywords.get(parameter.name, (None,))[0] is not parameter:
                break
            positional.append(keywords.pop(parameter.name))
        if self._rest is not None:
            positional.extend((self._rest, value) for value in args[len(self._slots) :])
        elif len(positional) + more > len(self._slots):
            raise self._wrong(
                f"has no place for one more argument after these {len(positional)}: the finished task"
            )
        self._require_all(len(positional) + more, keywords)
        ordered = {name: keywords.pop(name) for name in self._named if name in keywords}
        return positional, ordered | keywords

    def _arrange_keywords(self, positional: int, kwargs: dict[str, Any]) -> dict[str, tuple[Parameter, Any]]:
        taken = {parameter.name for parameter in self._slots[:positional]}
        keywords: dict[str, tuple[Parameter, Any]] = {}
        for name, value in kwargs.items():
            if name in self._injected:
                raise self._wrong(f"is given {name!r} by Everloop when it runs; leave it out of the call")
            parameter = self._named.get(name, self._extra)
            if parameter is None:
                raise self._unexpected(name)
            if parameter is not self._extra and name in taken:
                raise self._wrong(f"got multiple values for argument {name!r}")
            keywords[name] = parameter, value
        return keywords

    def _require_all(self, positional: int, keywords: Collection[str]) -> None:
        have = {p.name for p in self._slots[:positional]}
        wanted = {p.name: p for p in self._slots} | self._named
        missing = [
            name
            for name, parameter in wanted.items()
            if parameter.default is Parameter.empty
            and name not in have
            and (name not in keywords or name not in self._named)
        ]
        if missing:
            plural = "s" if len(missing) > 1 else ""
            names = " and ".join(filter(None, [", ".join(map(repr, missing[:-1])), repr(missing[-1])]))
            raise self._wrong(f"is missing {len(missing)} required argument{plural}: {names}")

    def _dump(self, arranged: _Arranged) -> bytes:
        positional, keywords = arranged
        values = [self._dump_one(p, p.name, value) for p, value in positional]
        named = {name: self._dump_one(p, name, value) for name, (p, value) in keywords.items()}
        try:
            return _encode((values, named))
        except UnicodeEncodeError:
            name = next(name for name in named if not name.isascii())
            raise NotStorable(f"{self.name}(): the name {short(name)} contains a lone surrogate") from None

    def _dump_one(self, parameter: Parameter, name: str, value: Any) -> msgspec.Raw:
        try:
            return msgspec.Raw(self._shapes[parameter.name].encode(value))
        except Refused as refused:
            where = refused.where(name)
            if not refused.wrong_type:
                raise NotStorable(f"{self.name}(): `{where}` cannot be stored: {refused.text}") from None
            at = "" if where == name else f" at `{where}`"
            raise ArgumentError(f"{self.name}({name}=): {refused.text}{at}") from None

    def _remember(self, positional: list[tuple[Parameter, Any]]) -> None:
        kinds = tuple(type(value) for _, value in positional)
        if len(self._exact) < _REMEMBERED and self._is_exact([p for p, _ in positional], kinds):
            self._exact[kinds] = float in kinds

    def _is_exact(self, parameters: list[Parameter], kinds: tuple[type, ...]) -> bool:
        return all(kind in self._shapes[p.name].exact for p, kind in zip(parameters, kinds, strict=True))

    # -- from bytes -----------------------------------------------------------------------------

    def load(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and the keyword arguments for the function.

        Raises:
            NotStorable: The data is no stored arguments, or of another signature.
        """
        try:
            positional, keywords = _decode(data)
        except (ValueError, RecursionError):
            return self._load_checked(data)
        if not keywords and tuple(map(type, positional)) in self._exact:
            return tuple(positional), keywords
        return self._load_checked(data)

    def _load_checked(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            decode(data)  # says what is wrong with the JSON, if anything
            stored = _decode_raw(data)
        except Refused as refused:
            raise self._unreadable(refused.text) from None
        except ValueError:
            raise self._unreadable("they are no array of positional and object of named values") from None
        try:
            positional, keywords = self._arrange(
                tuple(stored.positional), dict(stored.keywords), more=stored.more
            )
        except ArgumentError as error:
            raise self._unreadable(f"they were stored for another signature: {error}") from None
        # What was given by name where it could stand by position (the command line does) stands there now.
        args = [self._load_one(p, p.name, raw) for p, raw in positional]
        kwargs = {name: self._load_one(p, name, raw) for name, (p, raw) in keywords.items()}
        if not kwargs and not stored.more:
            self._remember([(p, value) for (p, _), value in zip(positional, args, strict=True)])
        return tuple(args), kwargs

    def _load_one(self, parameter: Parameter, name: str, raw: Any) -> Any:
        try:
            return self._shapes[parameter.name].decode(bytes(raw))
        except Refused as refused:
            raise self._unreadable(f"at `{refused.where(name)}`: {refused.text}") from None

    # -- messages -------------------------------------------------------------------------------

    def _wrong(self, text: str) -> ArgumentError:
        return ArgumentError(f"{self.name}() {text}\nIts signature is {self.signature}.")

    def _unexpected(self, name: str) -> ArgumentError:
        if any(p.name == name for p in self._slots):
            return self._wrong(f"takes {name!r} by position only")
        hint = near_miss(name, self._named)
        return self._wrong(f"got an unexpected keyword argument {name!r}{hint}")

    def _unreadable(self, text: str) -> NotStorable:
        return NotStorable(f"the stored arguments of {self.name}() cannot be read: {text}")


def _all_finite(args: tuple[Any, ...]) -> bool:
    return all(type(value) is not float or isfinite(value) for value in args)


def _count(slots: list[Parameter]) -> str:
    required = sum(p.default is Parameter.empty for p in slots)
    number = str(len(slots)) if required == len(slots) else f"{required} to {len(slots)}"
    return f"{number} positional argument{'' if len(slots) == 1 else 's'}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
