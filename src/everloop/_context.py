"""What code inside a task can ask about its own run."""

from __future__ import annotations

from typing import Literal, NoReturn

from everloop._core.errors import NoCurrentCall, OptionError
from everloop._core.policy import Delay
from everloop._core.text import is_unicode
from everloop.engine.attempt import CURRENT, Attempt
from everloop.engine.executor import RetryAfter


class Current:
    """The call in whose body this code runs (see `current`)."""

    __module__ = "everloop"

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    @property
    def id(self) -> str:
        """The call's id: the same in every attempt, so it serves as an idempotency key."""
        return self._attempt.leased.id

    @property
    def name(self) -> str:
        """The task function's name."""
        return self._attempt.leased.lane.fn

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self._attempt.leased.lane.queue

    @property
    def attempt(self) -> int:
        """Which attempt this is; the first is 1."""
        return self._attempt.leased.attempt + 1

    @property
    def stopping(self) -> Literal["cancelled", "timeout", "shutdown"] | None:
        """Why this run was asked to stop, or None.

        A body gets `CancelledError` at its `await`; a `def` in a thread gets nothing and looks here.
        """
        reason = self._attempt.stopping
        return "shutdown" if reason == "lost" else reason

    def heartbeat(self) -> None:
        """Give a sign of life, where the option `heartbeat` asks for one; `progress` is one, too.

        Cheap: nothing is stored.
        """
        self._attempt.beat()

    def snooze(self, delay: Delay) -> NoReturn:
        """Put this call off: it ends here, and runs again from its beginning after `delay`.

        It costs neither an attempt nor a crash; `total_timeout` goes on. The same as `raise
        RetryAfter(delay)`.

        Args:
            delay: Seconds, or a timedelta.

        Raises:
            RetryAfter: Always; let it through.
        """
        raise RetryAfter(delay)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far this call is; shown by `Task.progress` and by the commands.

        Cheap: reports gather, and the last one is stored with the worker's next turn.

        Args:
            done: Units done.
            total: Units in all, when that is known.
            note: A short text.

        Raises:
            OptionError: A number is none, or the note is no text.
        """
        _check_number("progress(done)", done)
        if total is not None:
            _check_number("progress(total)", total)
        text: object = note
        if not isinstance(text, str) or not is_unicode(text):
            raise OptionError(f"`progress(note)` is a text, not {text!r:.100}")
        self._attempt.report(done, total, note)


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, int | float) or not -1e300 < value < 1e300:
        raise OptionError(f"`{name}` is a number, not {value!r:.100}")


def current() -> Current:
    """Return the call in whose body this code runs.

    Raises:
        NoCurrentCall: This is not inside a task.

    Example:
        ```python
        import everloop

        app = everloop.App("album", "memory://")

        @app.task
        async def resize(paths: list[str]) -> int:
            for n, path in enumerate(paths):
                everloop.current().progress(n, len(paths), path)
            return len(paths)

        print(app.run(resize(["a.png", "b.png"])))
        ```
    """
    attempt = CURRENT.get()
    if attempt is None:
        raise NoCurrentCall(
            "`everloop.current()` was called outside a task: it is known only in the body of a task function "
            "that a worker runs (`fetch.plain(...)` runs it without a call)"
        )
    return Current(attempt)
