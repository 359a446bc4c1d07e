"""The names by which modules and classes are known, the same in every process."""

from __future__ import annotations

import sys
from pathlib import Path


def module_name(module: str) -> str:
    """Return a module's name as a worker knows it, who imports it: `__main__` is the one that was started.

    Without this, an exception class of `shop.py` would be `__main__.Gone` in `python shop.py`, and
    `shop.Gone` in `everloop worker shop:app`.
    """
    if module != "__main__":
        return module
    main = sys.modules.get(module)
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else module


def class_name(cls: type) -> str:
    """Return the name by which a class travels."""
    return f"{module_name(cls.__module__)}.{cls.__qualname__}"
