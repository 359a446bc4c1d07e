"""The classes whose instances have a tag of their own: registered for all, or named by an annotation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from everloop._core.names import class_name


@dataclass(frozen=True, slots=True)
class Registered:
    """A class of an upper layer that travels under its own tag."""

    cls: type
    tag: str
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


#: The tags of Everloop itself; `tags` says what they mean.
BUILTIN: Final = (
    *("$", "$tuple", "$set", "$frozenset", "$dict", "$bytes", "$int", "$float", "$decimal", "$uuid"),
    *("$datetime", "$date", "$time", "$timedelta", "$path", "$posixpath", "$windowspath"),
)

_by_class: dict[type, Registered] = {}
_by_tag: dict[str, Registered] = {}


def register(cls: type, tag: str, dump: Callable[[Any], Any], load: Callable[[Any], Any]) -> None:
    """Let instances of `cls` and of its subclasses travel as `{"$<tag>": dump(value)}`.

    Args:
        cls: The class.
        tag: Its tag, without the `$`.
        dump: Gives something that JSON can say. Two values are equal when their dumps are.
        load: Gives the value back. It runs when a payload is read, never while one is checked.
    """
    name = f"${tag}"
    if not tag.isidentifier() or name in BUILTIN or (name in _by_tag and _by_tag[name].cls is not cls):
        raise ValueError(f"the tag {tag!r} is taken, or is no identifier")
    _by_class[cls] = _by_tag[name] = Registered(cls, name, dump, load)


def registered(cls: type) -> Registered | None:
    """Return how instances of `cls` travel, when it or a base of it was registered."""
    if not _by_class:
        return None
    return next((_by_class[base] for base in cls.__mro__ if base in _by_class), None)


def tagged(tag: str) -> Registered | None:
    """Return what was registered under a tag."""
    return _by_tag.get(tag)


@dataclass(slots=True)
class Known:
    """The classes that an annotation names: their instances have a tag each.

    Attributes:
        tags: The tag of each class.
        classes: The class of each tag.
        met: While a payload is checked, the registered values in it: they stand for themselves, so
            that nothing is loaded.
        careful: Look at every string and int, to find the one that cannot be written.
    """

    tags: dict[type, str] = field(default_factory=dict[type, str])
    classes: dict[str, type] = field(default_factory=dict[str, type])
    met: dict[tuple[str, bytes], Any] | None = None
    careful: bool = False

    def add(self, cls: type) -> None:
        if cls not in self.tags:
            tag = f"$:{cls.__qualname__}"
            if tag in self.classes:
                tag = f"$:{class_name(cls)}"
            self.tags[cls], self.classes[tag] = tag, cls

    def checking(self) -> Known:
        """Return the same classes, for one value that is written and read back."""
        return Known(self.tags, self.classes, {})


NOTHING_KNOWN: Final = Known()
