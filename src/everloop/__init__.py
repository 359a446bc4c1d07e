"""Everloop: asyncio, made durable and distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from everloop._version import __version__

if TYPE_CHECKING:
    from everloop._app import App as App
    from everloop._call import Call as Call
    from everloop._context import Current as Current
    from everloop._context import current as current
    from everloop._core.errors import AlreadyAwaited as AlreadyAwaited
    from everloop._core.errors import ArgumentError as ArgumentError
    from everloop._core.errors import CallError as CallError
    from everloop._core.errors import ClosedError as ClosedError
    from everloop._core.errors import ConfigError as ConfigError
    from everloop._core.errors import EverloopError as EverloopError
    from everloop._core.errors import FunctionError as FunctionError
    from everloop._core.errors import IdConflict as IdConflict
    from everloop._core.errors import KeyConflict as KeyConflict
    from everloop._core.errors import LeaseLost as LeaseLost
    from everloop._core.errors import MissingDependency as MissingDependency
    from everloop._core.errors import NoCurrentCall as NoCurrentCall
    from everloop._core.errors import NotRetryable as NotRetryable
    from everloop._core.errors import NotStorable as NotStorable
    from everloop._core.errors import OptionError as OptionError
    from everloop._core.errors import ResultNotStorable as ResultNotStorable
    from everloop._core.errors import ResultPruned as ResultPruned
    from everloop._core.errors import RolledBack as RolledBack
    from everloop._core.errors import SchemaError as SchemaError
    from everloop._core.errors import StoreError as StoreError
    from everloop._core.errors import StoreUnavailable as StoreUnavailable
    from everloop._core.errors import StoreURLError as StoreURLError
    from everloop._core.errors import TaskCrashed as TaskCrashed
    from everloop._core.errors import TaskExpired as TaskExpired
    from everloop._core.errors import TaskFailed as TaskFailed
    from everloop._core.errors import TaskNotFound as TaskNotFound
    from everloop._core.errors import UsageError as UsageError
    from everloop._core.errors import WouldDeadlock as WouldDeadlock
    from everloop._core.policy import Keep as Keep
    from everloop._core.policy import Key as Key
    from everloop._core.policy import Retry as Retry
    from everloop._functions import TaskFunction as TaskFunction
    from everloop._history import History as History
    from everloop._history import LogLine as LogLine
    from everloop._history import Progress as Progress
    from everloop._history import Run as Run
    from everloop._options import Options as Options
    from everloop._sync import Sync as Sync
    from everloop._sync import SyncTask as SyncTask
    from everloop._task import Task as Task
    from everloop._workers import WorkerInfo as WorkerInfo
    from everloop.engine.executor import RetryAfter as RetryAfter
    from everloop.resources.database import Database as Database
    from everloop.resources.injection import Use as Use
    from everloop.resources.resource import Resource as Resource

_HOMES = {
    "everloop._app": ("App",),
    "everloop._call": ("Call",),
    "everloop._context": ("Current", "current"),
    "everloop._core.errors": (
        "AlreadyAwaited",
        "ArgumentError",
        "CallError",
        "ClosedError",
        "ConfigError",
        "EverloopError",
        "FunctionError",
        "IdConflict",
        "KeyConflict",
        "LeaseLost",
        "MissingDependency",
        "NoCurrentCall",
        "NotRetryable",
        "NotStorable",
        "OptionError",
        "ResultNotStorable",
        "ResultPruned",
        "RolledBack",
        "SchemaError",
        "StoreError",
        "StoreURLError",
        "StoreUnavailable",
        "TaskCrashed",
        "TaskExpired",
        "TaskFailed",
        "TaskNotFound",
        "UsageError",
        "WouldDeadlock",
    ),
    "everloop._core.policy": ("Keep", "Key", "Retry"),
    "everloop._functions": ("TaskFunction",),
    "everloop._history": ("History", "LogLine", "Progress", "Run"),
    "everloop._options": ("Options",),
    "everloop._sync": ("Sync", "SyncTask"),
    "everloop._task": ("Task",),
    "everloop._workers": ("WorkerInfo",),
    "everloop.engine.executor": ("RetryAfter",),
    "everloop.resources.database": ("Database",),
    "everloop.resources.injection": ("Use",),
    "everloop.resources.resource": ("Resource",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: `import everloop` stays small."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'everloop' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
