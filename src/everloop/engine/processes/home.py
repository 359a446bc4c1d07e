"""Where a process finds a function again, and what it cannot find."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from everloop._core.errors import FunctionError, UsageError
from everloop._core.names import module_name
from everloop.engine.processes.wire import Home, Place


def home_of(app: str, fn: str, modules: Iterable[str]) -> Home:
    """Return where to find the function `fn` of `app`, made and declared in these modules.

    Raises:
        FunctionError: One of them is an interactive session.
    """
    return Home(app, fn, tuple(_place(module, fn) for module in dict.fromkeys(modules)))


def _place(module: str, fn: str) -> Place:
    if module != "__main__":
        return Place(module)
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None:
        return Place(module_name(module))
    file = getattr(main, "__file__", None)
    if file is None or not Path(file).is_file():
        raise FunctionError(
            f"{fn}() cannot run in a process: it is declared in an interactive session, where no other "
            "process can import it. Put it into a file"
        )
    return Place(module_name(module), str(Path(file).absolute()))


def check_shared(url: str) -> None:
    """Refuse a store that lives in the worker's process.

    Raises:
        UsageError: It does.
    """
    if url.startswith("memory:"):
        raise UsageError(
            f"the store {url} lives inside the worker's process, and this body runs in another: it can "
            "submit nothing there. Give the app a file, or run the function with run='loop' or run='thread'"
        )


def default_size() -> int:
    """Return how many cores this process may use."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
