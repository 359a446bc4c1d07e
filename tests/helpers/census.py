"""What a process holds: memory, threads, descriptors, and all that Everloop's own objects have gathered.

The census finds containers by itself: every attribute of an object of Everloop's, and every variable of its
modules, that has a length. A new registry is counted from the day on which it is written.
"""

from __future__ import annotations

import _sqlite3
import asyncio
import ctypes
import gc
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from types import ModuleType
from typing import Any

#: Texts and the like have a length, and gather nothing.
_PLAIN = (str, bytes, int, float, type)


def held() -> dict[str, int]:
    """Return the figures of this process, now; they can be compared when nothing is under way.

    `rss` and `sqlite` are bytes: what is resident, and what of it SQLite has taken (the page cache of each
    connection grows up to 64 MiB). `blocks` are those of Python's allocator, to the last one.
    """
    gc.collect()
    blocks = sys.getallocatedblocks()
    descriptors = list(Path("/proc/self/fd").iterdir())
    return {
        "blocks": blocks,
        "rss": _rss(),
        "sqlite": _sqlite_used(),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "descriptors": len(descriptors),
        "connections": sum(map(_is_connection, descriptors)),
        "tasks": _tasks(),
    }


def registries() -> dict[str, int]:
    """Count what stands in the containers of Everloop's objects and modules, by class and attribute."""
    gc.collect()
    found: Counter[str] = Counter()
    for thing in gc.get_objects():
        if isinstance(thing, type) or not type(thing).__module__.startswith("everloop"):
            continue
        found[f"{type(thing).__name__}"] += 1
        for name, value in _attributes(thing):
            found[f"{type(thing).__name__}.{name}"] += _length(value)
    for name, module in list(sys.modules.items()):
        if name.startswith("everloop") and isinstance(module, ModuleType):
            for attribute, value in list(vars(module).items()):
                if attribute.startswith("__"):
                    continue
                cached: Callable[[], Any] | None = getattr(value, "cache_info", None)
                if cached is not None and getattr(value, "__module__", "") == name:
                    found[f"{name}.{attribute}"] = cached().currsize
                elif isinstance(value, (dict, list, set)):
                    found[f"{name}.{attribute}"] = len(value)
    return {name: count for name, count in found.items() if count}


def _attributes(thing: object) -> Iterator[tuple[str, object]]:
    yield from list(getattr(thing, "__dict__", {}).items())
    for cls in type(thing).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            value = getattr(thing, name, None)
            if value is not None:
                yield name, value


def _length(value: object) -> int:
    if isinstance(value, _PLAIN) or not isinstance(value, Sized):
        return 0
    try:
        return len(value)
    except Exception:
        return 0  # it has a length at times only


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0  # no loop runs here


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _sqlite_used() -> int:
    used = ctypes.CDLL(getattr(_sqlite3, "__file__", None)).sqlite3_memory_used
    used.restype = ctypes.c_int64
    return int(used())


def _is_connection(descriptor: Path) -> bool:
    try:
        target = str(descriptor.readlink())
    except FileNotFoundError:
        return False  # that of the listing itself
    return target.startswith("socket:") or target.endswith(".db")
