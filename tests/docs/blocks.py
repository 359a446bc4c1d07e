"""Fenced blocks of Markdown, and the directives that stand before them as HTML comments.

<!-- continues -->            it goes on where the python block before it ended
<!-- file: shop.py -->        it is saved under this name (and run); what follows may use it
<!-- no-run: needs a GPU -->  it is only compiled; the reason is required
<!-- run -->                  this console block is run, and prints what it shows
<!-- prints -->               this text block is what the program before it prints
<!-- server: mariadb -->      it runs on a database of that server, as what follows does
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w+-]*) *$")
DIRECTIVE = re.compile(
    r"^ *<!-- (?P<name>continues|file|no-run|run|prints|server)(?:: *(?P<value>.+?))? -->$"
)
TAKES_VALUE = ("file", "no-run", "server")


@dataclass(frozen=True)
class Block:
    """One fenced block: `line` is that of its first line of content."""

    source: Path
    line: int
    language: str
    text: str
    directives: dict[str, str]

    @property
    def place(self) -> str:
        return f"{self.source.relative_to(ROOT).as_posix()}:{self.line}"


class BadBlock(Exception):
    """A directive or a fence is not as CONTRIBUTING.md says."""


def blocks(text: str, source: Path, first_line: int = 1) -> Iterator[Block]:
    """Yield the fenced blocks of a text that begins at a line of a file."""
    directives: dict[str, str] = {}
    lines = iter(enumerate(text.splitlines(), first_line))
    for number, line in lines:
        if fence := FENCE.match(line):
            yield Block(source, number + 1, fence["language"], _content(lines, fence, source), directives)
            directives = {}
        elif directive := DIRECTIVE.match(line):
            if bool(directive["value"]) != (directive["name"] in TAKES_VALUE):
                raise BadBlock(f"{source}:{number}: `{line.strip()}`: see tests/docs/blocks.py for its form")
            directives[directive["name"]] = directive["value"] or ""
        elif line.strip() and directives:
            raise BadBlock(f"{source}:{number}: a directive stands directly before its block")


def _content(lines: Iterator[tuple[int, str]], fence: re.Match[str], source: Path) -> str:
    indent = fence["indent"]
    content: list[str] = []
    for _, line in lines:
        if line.rstrip() == f"{indent}```":
            return "\n".join(content) + "\n"
        content.append(line.removeprefix(indent))
    raise BadBlock(f"{source}: a block of {fence['language']!r} has no end")


def of_document(path: Path) -> list[Block]:
    return list(blocks(path.read_text(encoding="utf-8"), path))


def of_module(path: Path) -> list[Block]:
    """Return the blocks in the docstrings of a module."""
    return [
        block
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(first := node.body[0], ast.Expr)
        and isinstance(constant := first.value, ast.Constant)
        and isinstance(constant.value, str)
        for block in blocks(constant.value, path, constant.lineno)
    ]
