"""Small helpers for messages that help: near misses and sizes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches


def near_miss(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` when a known word is close to `word`, else an empty string."""
    found = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {str(found[0])!r}?" if found else ""


def is_unicode(text: str) -> bool:
    """Whether `text` can be written: one that holds half of a surrogate pair cannot."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def first_line(text: str, limit: int = 200) -> str:
    """Return the first line of `text`, cut to `limit` characters."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= limit else line[: limit - 1] + "…"


#: A password before the last `@`: one that holds `@`, `/`, `#` or `?` as it is must not be shown in part.
_PASSWORD = re.compile(r"(?<=://)([^:/@?#]*):.*@", re.DOTALL)
_PARAMETER = re.compile(r"(?<=[?&])(pass(?:word|wd)?=)[^&#]*", re.IGNORECASE)


def without_password(url: str) -> str:
    """Return `url` with its password hidden, for messages."""
    return _PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url, count=1))
