"""Exit codes, and which error means which.

0    it worked
1    the operation failed: the task failed, a call could not be retried, the demo lost something
2    wrong usage: a misspelt command or option, wrong arguments, an app that cannot be imported
3    no call has this id
4    the store is unreachable or not usable, or another version's
5    the time was over
75   a worker process asks its supervisor for a successor (--max-memory, --max-calls)
130  ended by Ctrl-C (SIGINT)
143  ended by SIGTERM
"""

from __future__ import annotations

import signal

import click

from everloop._core.errors import (
    ConfigError,
    EverloopError,
    FunctionError,
    MissingDependency,
    StoreError,
    StoreURLError,
    TaskNotFound,
    UsageError,
)

OK, FAILED, USAGE, NOT_FOUND, STORE, TIMEOUT = range(6)
RECYCLED = 75
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM

TEXTS = {
    OK: "it worked",
    FAILED: "the operation failed",
    USAGE: "wrong usage, or an app that cannot be imported",
    NOT_FOUND: "no call has this id",
    STORE: "the store is unreachable or not usable",
    TIMEOUT: "the time was over",
    INTERRUPTED: "ended by Ctrl-C",
    TERMINATED: "ended by SIGTERM",
}


class Exit(click.ClickException):
    """End the command with this code; its text, if any, is printed on standard error."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text)
        self.code = code


def code_of(error: EverloopError) -> int:
    """Return the exit code that an error of ours means."""
    if isinstance(error, TaskNotFound):
        return NOT_FOUND
    if isinstance(error, UsageError | StoreURLError | FunctionError | MissingDependency):
        return USAGE
    if isinstance(error, ConfigError | StoreError):
        return STORE
    return FAILED
