"""Settings of an app: what is allowed, and what is said of the rest."""

from __future__ import annotations

import logging

from everloop._core.errors import OptionError
from everloop._core.policy import Keep, check_delay
from everloop._core.text import near_miss


def check_keep(keep: object) -> Keep | None:
    """Return how long finished calls are kept.

    Raises:
        OptionError: It is no `Keep`.
    """
    if keep is None or isinstance(keep, Keep):
        return keep
    raise OptionError(f"`App(keep=)` is a `Keep` or None, not {keep!r:.100}; write keep=Keep(calls=86400)")


def check_level(level: object) -> int | None:
    """Return a level of logging as a number.

    Raises:
        OptionError: It is none.
    """
    if level is None or (isinstance(level, int) and not isinstance(level, bool) and level >= 0):
        return level
    known = logging.getLevelNamesMapping()
    if not isinstance(level, str) or level.upper() not in known:
        near = near_miss(level.upper(), known) if isinstance(level, str) else ""
        raise OptionError(
            f"`App(logs=)` is a level of logging such as 'INFO', or None, not {level!r:.100}{near}"
        )
    return known[level.upper()]


def check_stall_limit(limit: object) -> float | None:
    """Return the seconds for which the loop of a worker may be silent.

    Raises:
        OptionError: It is no delay, or too short for a keeper that looks once a second.
    """
    return None if limit is None else check_delay("App(stall_limit=)", limit, least=1) / 1e6
