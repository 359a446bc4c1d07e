"""Whether this process is one that a worker has started for bodies."""

from __future__ import annotations

#: Set at its very start.
IN_CHILD = False
