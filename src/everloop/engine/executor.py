"""The executor: one leased call to one outcome, as a pipeline of named steps."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from everloop._core.calls import Event
from everloop._core.codec import dump_error, error_record
from everloop._core.errors import FunctionError, NotStorable, ResultNotStorable, TaskCrashed, TaskFailed
from everloop._core.names import class_name
from everloop._core.policy import Delay, Retry, check_delay
from everloop._core.records import Leased, Outcome
from everloop.engine.attempt import CURRENT, Attempt
from everloop.engine.closing import loop_is_closing
from everloop.engine.processes.ends import ProcessDied, RaisedElsewhere
from everloop.engine.pulse import Pulse


class RetryAfter(Exception):
    """Raise this in a task to be run again after a delay, without counting an attempt.

    Args:
        delay: Seconds, or a timedelta.

    Example:
        >>> raise RetryAfter(30)
        Traceback (most recent call last):
        ...
        everloop.RetryAfter: again in 30 s
    """

    __module__ = "everloop"

    def __init__(self, delay: Delay) -> None:
        self.delay = check_delay("RetryAfter(delay)", delay)
        super().__init__(f"again in {self.delay / 1e6:g} s")


class RetryRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """A `Retry` as it travels with a call; exception classes go by name."""

    times: int
    delay: float = 1.0
    factor: float = 2.0
    cap: float = 300.0
    jitter: bool = True
    never: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def wait(self, repeat: int, rng: Callable[[], float]) -> float:
        """Return the seconds before the `repeat`-th repeat."""
        retry = Retry(self.times, delay=self.delay, factor=self.factor, cap=self.cap, jitter=self.jitter)
        return retry.wait(repeat, rng)

    def allows(self, error: BaseException, attempt: int) -> bool:
        """Tell whether attempt number `attempt`, ended by `error`, is repeated."""
        if isinstance(error, RaisedElsewhere):
            names = error.names
        else:
            names = frozenset(class_name(cls) for cls in type(error).__mro__)
        if attempt > self.times or names & set(self.never):
            return False
        return not self.only or bool(names & set(self.only))


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker minds when it runs a call; None leaves it to the function's own.

    Times are microseconds; a timeout of 0 means none.
    """

    retry: RetryRule | None = None
    timeout: int | None = None
    total_timeout: int | None = None
    heartbeat: int | None = None

    def over(self, base: Policy) -> Policy:
        """Return this policy, completed by `base`."""
        return Policy(
            self.retry if self.retry is not None else base.retry,
            self.timeout if self.timeout is not None else base.timeout,
            self.total_timeout if self.total_timeout is not None else base.total_timeout,
            self.heartbeat if self.heartbeat is not None else base.heartbeat,
        )


class Runnable(Protocol):
    """A task function, as the engine sees it."""

    name: str
    run: Literal["loop", "thread", "process"]
    policy: Policy

    async def invoke(self, attempt: Attempt) -> bytes:
        """Run the body with the stored arguments and return the stored form of its result.

        Raises:
            NotStorable: Before the body: an argument does not decode. `ResultNotStorable` after it.
        """
        ...


_policies = msgspec.json.Decoder(Policy)
log = logging.getLogger("everloop")
random_unit: Callable[[], float] = random.random
#: Where Everloop's own code lies.
OURS = f"{Path(__file__).parents[1]}{os.sep}"


def policy_of(function: Runnable, leased: Leased) -> Policy:
    """Return what holds for this call: its own options over the function's."""
    if not leased.policy:
        return function.policy
    return _policies.decode(leased.policy).over(function.policy)


async def execute(function: Runnable, attempt: Attempt, now: Callable[[], int]) -> Outcome | None:
    """Run one leased call; return its outcome, or None when there is nothing to settle.

    Never raises: whatever the body does, also `SystemExit`, is an outcome of the call.
    """
    CURRENT.set(attempt)
    try:
        policy = policy_of(function, attempt.leased)
    except msgspec.MsgspecError as error:
        text = f"the options that were stored with the call cannot be read: {error}"
        return _outcome(attempt, Event.FAIL, error=error_record(TaskFailed, text))
    timers = _start_timers(attempt, policy, now)
    attempt.began = True
    try:
        value = await _invoke(function, attempt)
    except BaseException as error:  # noqa: BLE001 - it is the outcome
        return _after_error(attempt, policy, error, now)
    else:
        return None if attempt.settled_inside else _outcome(attempt, Event.SUCCEED, value=value)
    finally:
        for timer in timers:
            timer.cancel()


async def _invoke(function: Runnable, attempt: Attempt) -> bytes:
    """Run the body, unless it was asked to stop before its first step."""
    if attempt.stopping is not None:
        raise asyncio.CancelledError(attempt.message)
    return await function.invoke(attempt)


def _start_timers(
    attempt: Attempt, policy: Policy, now: Callable[[], int]
) -> Sequence[asyncio.TimerHandle | Pulse]:
    """Arm the timeouts: of this attempt, of the call as a whole, and between two signs of life."""
    if not (policy.timeout or policy.total_timeout or policy.heartbeat):
        return ()
    limits: list[tuple[float, str]] = []
    if policy.timeout:
        limits.append((policy.timeout / 1e6, f"the attempt took longer than {policy.timeout / 1e6:g} s"))
    if policy.total_timeout:
        left = (attempt.leased.created + policy.total_timeout - now()) / 1e6
        text = _too_long(policy)
        if left <= 0:
            attempt.stop("timeout", text)  # it is too late already: the body does not begin
        limits.append((left, text))
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle | Pulse] = [
        loop.call_later(seconds, attempt.stop, "timeout", text) for seconds, text in limits
    ]
    if policy.heartbeat:
        timers.append(Pulse(attempt, policy.heartbeat / 1e6))
    return timers


def _after_error(
    attempt: Attempt, policy: Policy, error: BaseException, now: Callable[[], int]
) -> Outcome | None:
    """Decide what an exception means: stopped, put off, not storable, tried again, or failed."""
    if isinstance(error, asyncio.CancelledError):
        stopped = _after_stop(attempt)
        if not isinstance(stopped, BaseException):
            return stopped
        error = stopped
    elif attempt.stopping == "lost":
        return None
    put_off = _put_off(attempt, error)
    if put_off is not None:
        return _outcome(attempt, Event.RELEASE, delay=put_off)
    if isinstance(error, ResultNotStorable):
        # Its effect has happened: it is not repeated.
        return _outcome(attempt, Event.FAIL, error=error_record(ResultNotStorable, str(error)))
    return _after_failure(attempt, policy, error, now)


def _after_failure(attempt: Attempt, policy: Policy, error: BaseException, now: Callable[[], int]) -> Outcome:
    """Decide what an exception of the body means."""
    if isinstance(error, ProcessDied):
        return _outcome(attempt, Event.REAP, error=error_record(TaskCrashed, _crashed(attempt, error)))
    if isinstance(error, RaisedElsewhere):
        record = error.record
    else:
        record = dump_error(error, skip_frames=own_frames(error))
    unfit = isinstance(error, NotStorable | FunctionError)
    delay = None if unfit else _repeat_after(attempt, policy, error, now)
    if delay is None:
        return _outcome(attempt, Event.FAIL, error=record)
    return _outcome(attempt, Event.RETRY, error=record, delay=delay)


def _after_stop(attempt: Attempt) -> Outcome | TimeoutError | None:
    """Read a cancellation: by whom the body was stopped decides what it means."""
    if attempt.stopping == "lost" or attempt.settled_inside:
        return None
    if attempt.stopping == "shutdown" or (attempt.stopping is None and loop_is_closing()):
        return _outcome(attempt, Event.RELEASE)
    if attempt.stopping == "timeout":
        return TimeoutError(attempt.message)
    return _outcome(attempt, Event.CANCEL)


def _put_off(attempt: Attempt, error: BaseException) -> int | None:
    """Return the microseconds after which the call runs again without an attempt more, or None."""
    if isinstance(error, RetryAfter):
        return error.delay
    if attempt.stopping == "shutdown" and not isinstance(error, ResultNotStorable):
        return 0  # its unwinding failed, which says nothing about its work: a drain costs no attempt
    return None


def _crashed(attempt: Attempt, error: ProcessDied) -> str:
    leased = attempt.leased
    log.warning("everloop: the process that ran %s() (call %s) died: %s", leased.lane.fn, leased.id, error)
    return (
        f"processes died with it {leased.crashes + 1} times, more often than `crashes` allows; the last one: "
        f"{error}"
    )


def own_frames(error: BaseException) -> int:
    """Count the outermost frames of a traceback that are ours: users look for theirs."""
    count, trace = 0, error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(OURS):
        count, trace = count + 1, trace.tb_next
    return count if trace is not None else 0


def _repeat_after(
    attempt: Attempt, policy: Policy, error: BaseException, now: Callable[[], int]
) -> int | None:
    """Return the microseconds until the next attempt, or None when this was the last."""
    number = attempt.leased.attempt + 1
    rule = policy.retry
    if rule is None or not rule.allows(error, number):
        return None
    delay = round(rule.wait(number, random_unit) * 1_000_000)
    # Its timer is this loop's, and the instants are the store's: they may differ a little.
    if policy.total_timeout and (
        attempt.message == _too_long(policy) or now() + delay >= attempt.leased.created + policy.total_timeout
    ):
        return None
    return delay


def _too_long(policy: Policy) -> str:
    return f"the call took longer than {(policy.total_timeout or 0) / 1e6:g} s in all"


def _outcome(
    attempt: Attempt, event: Event, *, value: bytes | None = None, error: bytes | None = None, delay: int = 0
) -> Outcome:
    leased = attempt.leased
    return Outcome(leased.id, leased.fence, event, value, error, delay)


__all__: Sequence[str] = (
    "Policy",
    "RetryAfter",
    "RetryRule",
    "Runnable",
    "execute",
    "policy_of",
)
