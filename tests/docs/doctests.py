"""A program: run the `>>>` examples of one module's docstrings, in a process and a folder of their own."""

from __future__ import annotations

import ast
import doctest
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples(name: str) -> Iterator[doctest.DocTest]:
    """Yield those of each docstring; every one begins with the module's own names.

    They are found in the text, not through the objects: a class that says `__module__ = "everloop"` would
    else be taken for another module's.
    """
    module = importlib.import_module(name)
    path = Path(module.__file__ or "")
    parser = doctest.DocTestParser()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text and ">>>" in text:
                line = node.body[0].lineno - 1
                yield parser.get_doctest(text, dict(vars(module)), name, str(path), line)


def main(name: str) -> int:
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for example in examples(name):
        runner.run(example)
    return 1 if runner.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
