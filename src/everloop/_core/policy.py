"""What users may ask of a call, as frozen values, and the arithmetic behind it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from everloop._core.clock import microseconds
from everloop._core.errors import OptionError
from everloop._core.keeping import Pruning
from everloop._core.text import is_unicode

Delay = float | timedelta

#: How often a call's workers may die with it before it is failed.
CRASHES = 5
#: After so many crashes a call is a suspect: a worker runs one of them at a time, so that it takes no
#: neighbours with it.
SUSPECT = 2
#: Longest delay that is accepted: ten years, in seconds.
LONGEST = 10 * 366 * 86_400


def check_delay(name: str, value: object, *, least: float = 0) -> int:
    """Return a delay in microseconds, or say which option is wrong.

    Raises:
        OptionError: It is no number of seconds or timedelta, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise OptionError(f"`{name}` is a number of seconds or a timedelta, not {value!r}")
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not least <= seconds <= LONGEST:
        shown = float(max(min(seconds, 1e300), -1e300))  # an int may be larger than any float
        raise OptionError(f"`{name}` is {shown:g} s; it may be {least:g} s to {LONGEST} s (ten years)")
    return microseconds(seconds)


def check_whole(name: str, value: object, least: int, most: int = 1 << 31) -> int:
    """Return a whole number, or say which option is wrong.

    Raises:
        OptionError: It is no whole number, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        span = f"{least} or more" if most == 1 << 31 else f"from {least} to {most}"
        raise OptionError(f"`{name}` is a whole number, {span}, not {value!r}")
    return value


def check_classes(name: str, value: object) -> tuple[type[BaseException], ...]:
    """Return exception classes, or say which option is wrong.

    Raises:
        OptionError: It is one class instead of a list, or lists something else.
    """
    if not isinstance(value, Collection):
        raise OptionError(f"`{name}` is a list of exception classes, not {value!r:.100}")
    for cls in value:
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            raise OptionError(f"`{name}` lists exception classes, not {cls!r:.100}")
    return tuple(value)


@dataclass(frozen=True, slots=True)
class Retry:
    """Say how often, when, and after which exceptions a call is tried again.

    The n-th repeat waits `delay * factor ** (n - 1)` seconds, at most `cap`; with `jitter` a uniformly
    random part of it ("full jitter": https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/).

    Args:
        times: Repeats after the first attempt; 0 means one attempt.
        delay: Seconds (or a timedelta) before the first repeat.
        factor: Growth from repeat to repeat, at least 1.
        cap: The longest wait, seconds or a timedelta.
        jitter: Wait a random part of the time, so that a thousand failures do not return at once.
        never: Exceptions that end the call at once.
        only: When given, any other exception ends the call at once.

    Example:
        >>> Retry(4, delay=1, jitter=False).wait(3)
        4.0
    """

    times: int = 3
    delay: Delay = field(default=1.0, kw_only=True)
    factor: float = field(default=2.0, kw_only=True)
    cap: Delay = field(default=300.0, kw_only=True)
    jitter: bool = field(default=True, kw_only=True)
    never: Sequence[type[BaseException]] = field(default=(), kw_only=True)
    only: Sequence[type[BaseException]] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        check_whole("Retry(times)", self.times, 0)
        check_delay("Retry(delay=)", self.delay)
        check_delay("Retry(cap=)", self.cap)
        factor: object = self.factor
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor <= 1e6:
            raise OptionError(f"`Retry(factor=)` is at least 1, not {factor!r} (a number up to 1000000)")
        check_classes("Retry(never=)", self.never)
        check_classes("Retry(only=)", self.only)

    def wait(self, repeat: int, random: Callable[[], float] = lambda: 1.0) -> float:
        """Return the seconds to wait before the `repeat`-th repeat (the first is 1).

        `random` gives numbers in [0, 1) and is only asked when `jitter` is on.
        """
        cap = microseconds(self.cap) / 1e6
        base = microseconds(self.delay) / 1e6
        try:
            longest = min(cap, base * self.factor ** (repeat - 1))
        except OverflowError:
            longest = cap
        return longest * random() if self.jitter else longest

    def allows(self, error: BaseException, attempt: int) -> bool:
        """Tell whether attempt number `attempt` (the first is 1), ended by `error`, is repeated."""
        if attempt > self.times or isinstance(error, tuple(self.never)):
            return False
        return not self.only or isinstance(error, tuple(self.only))


def _days(days: float) -> timedelta:
    return timedelta(days=days)


@dataclass(frozen=True, slots=True)
class Keep:
    """Say how long an app keeps its finished calls; its workers prune what is older.

    Ages count from the end of a call. No call goes within a minute of its end, before the call at the root of
    its tree, while a callback of it has not ended, or before who waits for it was told. With it go its
    arguments, its result, its runs, its logs, and its key.

    Args:
        calls: Seconds (or a timedelta) for which calls that succeeded are kept; None is for ever.
        failed: The same for those that failed, expired, or were cancelled.
        results: After so long the result of a call goes, and the call stays; None keeps both equally long.
        logs: After so long what its runs have logged goes; None keeps it as long as the call.
        count: How many finished calls are kept, the newest ones; None is any number.

    Example:
        >>> Keep(calls=3600, count=None).told
        'calls that succeeded are kept for 1 hour, others for 30 days'
    """

    calls: Delay | None = field(default=_days(7), kw_only=True)
    failed: Delay | None = field(default=_days(30), kw_only=True)
    results: Delay | None = field(default=None, kw_only=True)
    logs: Delay | None = field(default=None, kw_only=True)
    count: int | None = field(default=1_000_000, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("calls", "failed", "results", "logs"):
            self._age(name)
        if self.count is not None:
            check_whole("Keep(count=)", self.count, 0)

    def _age(self, name: str) -> int | None:
        value: Delay | None = getattr(self, name)
        return None if value is None else check_delay(f"Keep({name}=)", value, least=60)

    def pruning(self, app: str, every: float) -> Pruning:
        """Return what is asked of the store, every so many seconds."""
        return Pruning(
            app,
            calls=self._age("calls"),
            failed=self._age("failed"),
            results=self._age("results"),
            logs=self._age("logs"),
            count=self.count,
            every=round(every * 1_000_000),
        )

    @property
    def told(self) -> str:
        """The rule in words."""
        calls, failed = _span(self.calls), _span(self.failed)
        rule = f"calls that succeeded are kept {calls}, others {failed}"
        return rule if self.count is None else f"{rule}, and at most {self.count:,} in all"


def _span(age: Delay | None) -> str:
    if age is None:
        return "for ever"
    seconds = microseconds(age) / 1e6
    for name, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size and seconds % size == 0:
            number = round(seconds / size)
            return f"for {number} {name}{'' if number == 1 else 's'}"
    return f"for {seconds:g} seconds"


@dataclass(frozen=True, slots=True)
class Key:
    """Name a call, so that only one of that name exists among the live (or done, or all kept) calls.

    A key is unique per app and task function.

    Args:
        value: The name, 1 to 255 characters.
        among: "live" (unfinished calls), "done" (also succeeded ones), "ever" (all that are kept).
        on_conflict: "join" gives the existing task, "raise" raises `KeyConflict`, "replace" cancels
            the existing call and submits this one.

    Example:
        >>> Key("https://example.org/", among="done").value
        'https://example.org/'
    """

    value: str
    among: Literal["live", "done", "ever"] = field(default="live", kw_only=True)
    on_conflict: Literal["join", "raise", "replace"] = field(default="join", kw_only=True)

    def __post_init__(self) -> None:
        value: object = self.value
        if not isinstance(value, str) or not 1 <= len(value) <= 255 or not is_unicode(value):
            raise OptionError(f"`Key(value)` is a text of 1 to 255 characters, not {self.value!r:.80}")
        if self.among not in ("live", "done", "ever"):
            raise OptionError(f"`Key(among=)` is 'live', 'done' or 'ever', not {self.among!r}")
        if self.on_conflict not in ("join", "raise", "replace"):
            raise OptionError(
                f"`Key(on_conflict=)` is 'join', 'raise' or 'replace', not {self.on_conflict!r}"
            )
