"""The size ratchet: no source file over 500 lines, no class over 450, no function over 60.

What is larger is listed in `tools/sizes.json` with its size, which can only go down: growing beyond it fails,
and so does a size that is larger than the truth, until `sizes.py --tighten` has lowered it.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / "tools" / "sizes.json"
LIMITS = {"file": 500, "class": 450, "function": 60}


@dataclass(frozen=True)
class Piece:
    """A file, a class or a function, and how long it is."""

    key: str
    kind: str
    lines: int


def pieces(path: Path) -> Iterator[Piece]:
    """Yield the file, and every class and function in it."""
    name = path.relative_to(ROOT).as_posix()
    source = path.read_text(encoding="utf-8")
    yield Piece(name, "file", len(source.splitlines()))
    yield from inside(ast.parse(source), name, ":")


def inside(node: ast.AST, prefix: str, dot: str) -> Iterator[Piece]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from inside(child, prefix, dot)
            continue
        key = f"{prefix}{dot}{child.name}"
        kind = "class" if isinstance(child, ast.ClassDef) else "function"
        yield Piece(key, kind, (child.end_lineno or child.lineno) - child.lineno + 1)
        yield from inside(child, key, ".")


def complaints(found: dict[str, Piece], baseline: dict[str, int]) -> Iterator[str]:
    """Yield what grew, and what the baseline allows without need."""
    for key, piece in found.items():
        limit = baseline.get(key, LIMITS[piece.kind])
        if piece.lines > limit:
            yield f"{key}: a {piece.kind} of {piece.lines} lines, over {limit}: find its second noun"
    for key, size in baseline.items():
        if size > lowest(found, key):
            yield f"{key}: smaller than tools/sizes.json says: run `python tools/sizes.py --tighten`"


def lowest(found: dict[str, Piece], key: str) -> int:
    """Return the size that the baseline may give it: its own, or 0 where it needs no mention."""
    piece = found.get(key)
    return piece.lines if piece and piece.lines > LIMITS[piece.kind] else 0


def main(arguments: list[str]) -> int:
    found = {piece.key: piece for path in sorted(ROOT.glob("src/**/*.py")) for piece in pieces(path)}
    baseline: dict[str, int] = json.loads(BASELINE.read_text(encoding="utf-8"))
    if "--tighten" in arguments:
        lower = {key: min(size, lowest(found, key)) for key, size in baseline.items() if lowest(found, key)}
        BASELINE.write_text(json.dumps(lower, indent=2) + "\n", encoding="utf-8")
        baseline = lower
    told = list(complaints(found, baseline))
    print("\n".join(told), end="\n" if told else "")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
