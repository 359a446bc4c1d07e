"""One-line notices on standard error, each said once per process."""

from __future__ import annotations

import sys

_said: set[str] = set()


def notice(text: str) -> None:
    """Print `everloop: text` on standard error, once."""
    if text not in _said:
        _said.add(text)
        print(f"everloop: {text}", file=sys.stderr, flush=True)  # noqa: T201 - its purpose
