"""What the adapters of web servers share: how they open an app, and which answers are failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from everloop._app import App
from everloop._core.errors import OptionError, UsageError
from everloop._core.policy import Delay, check_delay, check_whole
from everloop._options import check_names


class NotKept(Exception):
    """Leaves the scopes of a request whose answer says that it failed, though nothing was raised."""


def check_status(status: int) -> None:
    """Leave the scopes of a request that is answered with 500 or more."""
    if status >= 500:
        raise NotKept


def opening(
    app: App,
    where: str,
    *,
    worker: bool,
    concurrency: int | None,
    queues: Sequence[str] | None,
    grace: Delay | None,
) -> Callable[[], AbstractAsyncContextManager[object]]:
    """Check the options, and return what opens the app for the life of the server.

    Raises:
        UsageError: It is no app.
        OptionError: An option is out of range, or is one of a worker that was not asked for.
    """
    if not isinstance(app, App):
        raise UsageError(f"{where} takes an everloop.App, not {app!r:.100}")
    given: dict[str, Any] = {"concurrency": concurrency, "queues": queues, "grace": grace}
    options = {name: value for name, value in given.items() if value is not None}
    if not worker:
        if options:
            names = ", ".join(f"{name}={value!r}" for name, value in options.items())
            raise OptionError(
                f"{where}: {names} is for a worker in this process, and none was asked for: add worker=True, "
                "or leave it out"
            )
        return lambda: app
    check_whole("concurrency", options.get("concurrency", 1), 1)
    check_names("queues", options.get("queues", ()))
    check_delay("grace", options.get("grace", 0))
    return lambda: app.worker(**options)
