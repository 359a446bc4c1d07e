"""Every error of Everloop, drawn as a tree.

EverloopError
├── ConfigError            wrong set-up, found before any work
│   ├── StoreURLError      the URL names no store that Everloop knows
│   ├── MissingDependency  an optional package is not installed
│   ├── SchemaError        the database holds another version's tables, or none of ours
│   └── FunctionError      this cannot be a task function (also TypeError)
├── UsageError             called wrongly
│   ├── ArgumentError      wrong arguments of a task function (also TypeError)
│   ├── OptionError        a wrong option or a wrong value of one (also TypeError, ValueError)
│   ├── NotStorable        a value that would not come back equal (also ValueError)
│   ├── AlreadyAwaited     a call is scheduled once (also RuntimeError)
│   ├── ClosedError        the app is closed (also RuntimeError)
│   ├── NoCurrentCall      `everloop.current()` outside a task (also RuntimeError)
│   └── WouldDeadlock      waiting for a call while holding what it may need (also RuntimeError)
├── StoreError             the database failed us; `__cause__` is the driver's error
│   └── StoreUnavailable   it does not answer now; the work is kept and goes on later
└── CallError              what became of a call
    ├── TaskNotFound       no call has this id (also LookupError)
    ├── IdConflict         the id exists with another function or other arguments (also ValueError)
    ├── KeyConflict        `Key(..., on_conflict="raise")` met a call (also ValueError)
    ├── ResultPruned       it succeeded, and its result is no longer kept (also LookupError)
    ├── NotRetryable       only a finished call can be retried (also ValueError)
    ├── LeaseLost          another worker owns the call now: what this attempt adds is void
    ├── RolledBack         the transaction in which the call was submitted was rolled back
    └── TaskFailed         the call ended without a value
        ├── TaskExpired    it was not started in time (also TimeoutError)
        ├── TaskCrashed    its workers died with it more often than `crashes` allows
        └── ResultNotStorable  it ran, and its result could not be stored; it is not repeated

asyncio's own exceptions are used, not replaced: `CancelledError`, `TimeoutError`, `InvalidStateError`.
An exception that a task raised arrives as a subclass of `TaskFailed` and of its own class.
"""

from __future__ import annotations


class EverloopError(Exception):
    """The root of every error that Everloop raises."""

    __module__ = "everloop"


class ConfigError(EverloopError):
    """The set-up is wrong; nothing has been done yet."""


class StoreURLError(ConfigError, ValueError):
    """The URL names no store that Everloop knows."""


class MissingDependency(ConfigError, ImportError):
    """An optional package is not installed; the message has the exact install line."""


class SchemaError(ConfigError):
    """The database holds tables of another version, or is no Everloop store."""


class FunctionError(ConfigError, TypeError):
    """What was decorated cannot be a task function."""


class UsageError(EverloopError):
    """Everloop was called wrongly."""


class ArgumentError(UsageError, TypeError):
    """The arguments do not fit the task function's signature."""


class OptionError(UsageError, TypeError, ValueError):
    """An option is unknown, or its value is out of range."""


class NotStorable(UsageError, ValueError):
    """A value cannot be stored, or would not come back equal; the message names its path."""


class AlreadyAwaited(UsageError, RuntimeError):
    """A call was scheduled a second time."""


class ClosedError(UsageError, RuntimeError):
    """The app is closed."""


class NoCurrentCall(UsageError, RuntimeError):
    """There is no current call: this code does not run inside a task."""


class WouldDeadlock(UsageError, RuntimeError):
    """Waiting for a call here could wait for ever: what is held may be what the call needs."""


class StoreError(EverloopError):
    """The database failed; `__cause__` is the driver's error."""


class StoreUnavailable(StoreError):
    """The store does not answer now."""


class CallError(EverloopError):
    """Something about one call."""


class TaskNotFound(CallError, LookupError):
    """No call has this id."""


class IdConflict(CallError, ValueError):
    """The id belongs to a call of another function or with other arguments."""


class KeyConflict(CallError, ValueError):
    """A call with this key exists, and `on_conflict="raise"` was asked for."""


class ResultPruned(CallError, LookupError):
    """The call succeeded, and its result is no longer kept."""


class NotRetryable(CallError, ValueError):
    """Only a finished call can be retried."""


class LeaseLost(CallError):
    """This attempt no longer holds its call; what it tried to add was not added."""


class RolledBack(CallError):
    """The transaction in which the call was submitted was rolled back: it was not submitted."""


class TaskFailed(CallError):
    """A call ended without a value.

    Attributes:
        type_name: The name of the exception's class where it was raised.
        task_id: The id of the call, when it is known.
    """

    type_name: str = ""
    task_id: str = ""


class TaskExpired(TaskFailed, TimeoutError):
    """The call was not started before it expired."""


class TaskCrashed(TaskFailed):
    """The call's workers died with it more often than `crashes` allows."""


class ResultNotStorable(TaskFailed):
    """The task ran, and its result could not be stored. Its effect has happened: it is not repeated."""


for _error in list(globals().values()):
    if isinstance(_error, type) and issubclass(_error, EverloopError):
        _error.__module__ = "everloop"
