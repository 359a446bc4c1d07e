"""The seed of what tests draw at random: the same in each run, so that a failure is the fault of a change."""

from __future__ import annotations

import os

#: Names another seed; `make soak` draws one for each of its runs.
VARIABLE = "EVERLOOP_SEED"
#: What everybody draws from otherwise. It stands for nothing.
ALWAYS = 20_261_126


def chosen() -> bool:
    """Tell whether somebody has named a seed."""
    return bool(os.environ.get(VARIABLE))


def seed() -> int:
    """Return the seed, and print how to have it again.

    Raises:
        ValueError: What was named is not a whole number from 1 on.
    """
    text = os.environ.get(VARIABLE) or str(ALWAYS)
    if not text.isdecimal() or not int(text):
        raise ValueError(f"{VARIABLE} is {text!r}; it must be a whole number from 1 on")
    print(f"{VARIABLE}={text}")
    return int(text)
