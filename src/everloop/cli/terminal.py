"""What the terminal can show: its width, its colours, and no control characters from the store."""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from typing import Literal, TextIO

from everloop._notices import print_line

Style = Literal["bold", "dim", "red", "green", "yellow", "cyan"]

_CODES: dict[Style, int] = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}
# C0, DEL, C1, and the marks that turn the direction of text: a stored name must not paint the screen.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROL_BUT_LINES = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def clean(text: str, *, lines: bool = False) -> str:
    r"""Return `text` without control characters; white space becomes a blank, with `lines` but new lines.

    Example:
        >>> clean("red \x1b[31mtext\n")
        'red [31mtext '
    """
    spaced = text.expandtabs(4).replace("\r\n", "\n").replace("\r", "\n")
    if lines:
        return _CONTROL_BUT_LINES.sub("", spaced)
    return _CONTROL.sub("", spaced.replace("\n", " "))


def has_colour(stream: TextIO) -> bool:
    """Tell whether to write colours: FORCE_COLOR and NO_COLOR decide, then whether it is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO) -> bool:
    """Tell whether a human looks at it."""
    return stream.isatty()


def paint(text: str, *styles: Style, stream: TextIO | None = None) -> str:
    """Return `text` in these styles where the stream (standard output) has colours."""
    if not styles or not text or not has_colour(stream or sys.stdout):
        return text
    return f"\x1b[{';'.join(str(_CODES[style]) for style in styles)}m{text}\x1b[0m"


def width(stream: TextIO | None = None) -> int | None:
    """Return the columns of the terminal; None where there is none, and nothing has to be cut."""
    if os.environ.get("COLUMNS", "").isdigit():
        return max(20, int(os.environ["COLUMNS"]))
    if not is_terminal(stream or sys.stdout):
        return None
    try:
        return max(20, os.get_terminal_size((stream or sys.stdout).fileno()).columns)
    except OSError:
        return shutil.get_terminal_size().columns


def cells(text: str) -> int:
    """Return how many columns `text` takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, columns: int) -> str:
    """Return `text` in at most so many columns, with an ellipsis where something is missing.

    Example:
        >>> cut("https://example.org/", 10)
        'https://e…'
    """
    if cells(text) <= columns:
        return text
    kept, used = "", 0
    for character in text:
        used += _cells_of(character)
        if used > columns - 1:
            break
        kept += character
    return kept + "…" if columns > 0 else ""


def say(text: str) -> None:
    """Print a line for the human, on standard error."""
    print_line(text)
