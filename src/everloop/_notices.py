"""One-line notices on standard error, each said once per process."""

from __future__ import annotations

import sys
from collections.abc import Callable

_said: set[str] = set()


def print_line(text: str) -> None:
    """Print a line for the human, on standard error."""
    # In one piece, where nothing is buffered: beside other processes lines would be mixed up.
    print(f"{text}\n", end="", file=sys.stderr, flush=True)  # noqa: T201 - its purpose


#: What shows a notice; a command that draws on the terminal puts its own here.
show: Callable[[str], None] = print_line


def notice(text: str) -> None:
    """Show `everloop: text`, once."""
    if text not in _said:
        _said.add(text)
        show(f"everloop: {text}")
