"""How the codec refuses a value: a reason, and the path that grows while it travels outwards."""

from __future__ import annotations

import re
from typing import Final

import msgspec

#: Containers inside containers, at most. Deeper values are refused instead of exhausting the stack.
DEPTH: Final = 100


class Refused(Exception):
    """A value, or stored data, that the codec will not pass on.

    Attributes:
        text: The reason.
        wrong_type: Whether the value does not fit its annotation (else it cannot be stored at all).
    """

    def __init__(self, text: str, *, wrong_type: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.wrong_type = wrong_type
        self._steps: list[str] = []

    def within(self, step: str) -> Refused:
        """Note that the refused value is at `step` of what is around it."""
        self._steps.append(step)
        return self

    def where(self, path: str) -> str:
        """Return the full path of the refused value, where `path` leads to the outermost one."""
        full = path + "".join(reversed(self._steps))
        return full if len(full) <= 200 else f"{full[:120]}…{full[-60:]}"


def too_deep() -> Refused:
    return Refused(f"it nests deeper than {DEPTH} levels, or contains itself; pass a flatter value")


def key_step(key: object) -> str:
    """Return how a path goes on to the value of `key`: `.total`, or `['a b']`."""
    if isinstance(key, str) and key.isidentifier():
        return f".{key}"
    return f"[{short(key)}]"


def short(value: object, limit: int = 60) -> str:
    """Return `repr(value)` cut to `limit` characters, whatever the repr does."""
    try:
        # A whole megabyte need not be written out for sixty characters of it.
        text = repr(value[:limit]) if isinstance(value, str | bytes) else repr(value)
    except Exception as error:  # noqa: BLE001  the user's repr
        return f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def would_be_plain(value: object, plain: type) -> Refused:
    name = type(value).__qualname__
    return Refused(
        f"a `{name}` ({short(value)}) would come back as a plain `{plain.__qualname__}`; "
        f"annotate it with `{name}`, or pass the plain value"
    )


_AT: Final = re.compile(r"(.*?)(?: - at (.*))?", re.DOTALL)


def explain(error: Exception) -> Refused:
    """Return what msgspec, or a class that it called, said against a value, with its path."""
    if isinstance(error, RecursionError):
        return too_deep()
    match = _AT.fullmatch(str(error))
    text, where = match.groups() if match else (str(error), None)
    refused = Refused(text[:1].lower() + text[1:], wrong_type=isinstance(error, msgspec.ValidationError))
    if where is not None and where.startswith("`$"):
        return refused.within(where.strip("`")[1:])
    if where is not None:
        refused.text += f" at {where}"
    return refused
