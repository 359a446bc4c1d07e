"""What the commands print."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from everloop import _notices
from everloop.cli.terminal import say


def test_a_line_is_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that write to one place at once, with PYTHONUNBUFFERED as in a container, mix up no lines."""
    pieces: list[bytes] = []

    class Unbuffered(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, piece: Any) -> int:
            pieces.append(bytes(piece))
            return len(piece)

    for print_line in (say, _notices.print_line):
        raw: Any = Unbuffered()
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, write_through=True))
        print_line("one line")
    assert [piece for piece in pieces if piece] == [b"one line\n"] * 2
