"""Identifiers of calls: UUID version 7, minted where the call is born."""

from __future__ import annotations

import os
import re
import time
from itertools import count

_SHAPE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

# Calls are born thousands at a time, so the random part is drawn once per process and per
# millisecond-run counter instead of once per id. `_reseed` runs again in a forked child:
# two processes never share the random part.
_random: str
_counter: count[int]
#: What the ids of one millisecond share: the millisecond, the counter's upper part, and the text.
_prefix: tuple[int, int, str]


def _reseed() -> None:
    global _random, _counter, _prefix  # noqa: PLW0603 - per process, by design
    bits = int.from_bytes(os.urandom(8), "big")
    _random = f"{0x8000 | (bits >> 50):04x}"[-4:] + f"-{bits & 0xFFFFFFFF:08x}"
    _counter = count(bits >> 40 & 0xFFF)
    _prefix = (0, 0, "")


_reseed()
os.register_at_fork(after_in_child=_reseed)


def new_id() -> str:
    """Mint a UUIDv7 (RFC 9562): 48 bits of milliseconds, a counter, and this process's randomness.

    Two ids of one process differ by their counter (28 bits, so 2**28 ids may share a millisecond);
    two ids of different processes differ by 46 random bits.
    """
    global _prefix  # noqa: PLW0603 - per process, by design
    n = next(_counter)
    ms = time.time_ns() // 1_000_000
    high = n >> 16 & 0xFFF
    known = _prefix
    if known[0] != ms or known[1] != high:
        text = f"{ms >> 16 & 0xFFFFFFFF:08x}-{ms & 0xFFFF:04x}-7{high:03x}-{_random}"
        _prefix = known = (ms, high, text)
    return f"{known[2]}{n & 0xFFFF:04x}"


def following_id(id_: str, number: int) -> str:
    """Return the id of what follows a call: always the same, a UUIDv5 (RFC 9562) within its id."""
    from uuid import UUID, uuid5  # only callbacks need it, and whoever imports everloop would wait for it

    return str(uuid5(UUID(id_), str(number)))


def is_id(text: str) -> bool:
    """Tell whether `text` is a UUID in the lower-case form that Everloop stores."""
    return _SHAPE.fullmatch(text) is not None
