"""What is written down of a call whose worker has died with it."""

from __future__ import annotations

from typing import NamedTuple

from everloop._core.codec import error_record
from everloop._core.errors import TaskCrashed


class Death(NamedTuple):
    """The end of a worker session whose process has ended, or whose time is over.

    Attributes:
        host: Its machine.
        pid: Its process.
        how: What is known of how that ended: `it was killed by SIGKILL`; nothing where nobody saw it.
    """

    host: str
    pid: int
    how: str = ""

    def record(self, crashes: int, limit: int) -> bytes | None:
        """Return the record of a run that was cut off, or of a call that has crashed once too often.

        None where the call runs again, and only who ran it is known.
        """
        if crashes > limit:
            who = f"the last one was pid {self.pid} on {self.host}"
            how = f": {self.how}" if self.how else ""
            return error_record(TaskCrashed, f"{_too_often(crashes, limit)}; {who}{how}")
        if not self.how:
            return None
        return error_record(TaskCrashed, f"its worker (pid {self.pid} on {self.host}) died: {self.how}")


def of_somebody(crashes: int, limit: int) -> bytes:
    """Return the record of a call that is not run again, where nobody knows who the last worker was."""
    return error_record(TaskCrashed, _too_often(crashes, limit))


def _too_often(crashes: int, limit: int) -> str:
    return f"its worker died with it {crashes} times; `crashes={limit}` allows {limit}"
