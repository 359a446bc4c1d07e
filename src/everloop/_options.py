"""Options of a call: one frozen, typed object, wherever they are given.

They stand on the decorator, on `fetch.options(...)`, on `fetch(url).options(...)`, and on `submit`; the
later wins.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypedDict, cast, runtime_checkable

import msgspec

from everloop._core.clock import LAST, instant
from everloop._core.errors import OptionError
from everloop._core.ids import is_id
from everloop._core.names import class_name
from everloop._core.policy import Delay, Key, Retry, check_delay, check_whole
from everloop._core.text import is_unicode, near_miss
from everloop.engine.executor import Policy, RetryRule

#: A durable callback: a task function, or a `functools.partial` of one; it gets the finished task last.
OnDone = Callable[..., Any]


@runtime_checkable
class Adding(Protocol):
    """What a task function is, as far as options need to know."""

    @property
    def new_call(self) -> Callable[..., object]: ...


class Options(TypedDict, total=False):
    """What may be said of a call.

    Attributes:
        queue: The line it stands in; workers say which queues they serve.
        priority: -100 to 100; higher goes first. A child takes its parent's when none is given.
        delay: Seconds (or a timedelta) before which it does not start.
        at: An aware datetime before which it does not start.
        expires: Seconds after which it is no longer started; it ends as expired.
        timeout: Seconds that one attempt may take; None means any.
        total_timeout: Seconds from submission that all attempts together may take.
        heartbeat: Seconds within which a running body gives a sign of life (`current().heartbeat()`, or
            `progress`); else it is ended like after `timeout`.
        retries: How often it is repeated after an exception, or a `Retry`.
        crashes: How often its worker may die with it before it is failed.
        key: Joins calls of one name (see `Key`); a text is `Key(text)`.
        tags: Texts by which listings find it.
        on_done: Task functions (or partials of them) that run when it has ended, however it did.
        id: A UUID of your own instead of a minted one: submitting it twice is submitting it once.
        fresh: Do not re-use what an earlier attempt of the parent got from an equal call.
    """

    queue: str
    priority: int
    delay: Delay
    at: datetime
    expires: Delay
    timeout: Delay | None
    total_timeout: Delay | None
    heartbeat: Delay | None
    retries: int | Retry
    crashes: int
    key: str | Key
    tags: Sequence[str]
    on_done: OnDone | Sequence[OnDone]
    id: str
    fresh: bool


NAMES = tuple(Options.__annotations__)


class Settings(msgspec.Struct, frozen=True):
    """Checked options; None means not given."""

    queue: str | None = None
    priority: int | None = None
    due: int | None = None
    delay: int | None = None
    expires: int | None = None
    policy: Policy = Policy()
    crashes: int | None = None
    key: Key | None = None
    tags: tuple[str, ...] | None = None
    on_done: tuple[OnDone, ...] | None = None
    id: str | None = None
    fresh: bool | None = None

    def then(self, later: Settings) -> Settings:
        """Return these settings overridden by what `later` gives."""
        if later is NOTHING:
            return self
        given = {name: value for name, value in msgspec.structs.asdict(later).items() if value is not None}
        given["policy"] = later.policy.over(self.policy)
        if "due" in given or "delay" in given:
            given = {"due": None, "delay": None} | given  # the later of the two replaces the other
        return msgspec.structs.replace(self, **given)


NOTHING = Settings()


def read_options(options: Options, where: str) -> Settings:
    """Check options and turn them into settings.

    Raises:
        OptionError: One is unknown, or its value is out of range.
    """
    if not options:
        return NOTHING
    for name in options:
        if name not in NAMES:
            raise OptionError(
                f"unknown option `{name}` for {where}{near_miss(name, NAMES)}; the options are "
                f"{', '.join(NAMES)}"
            )
    if "delay" in options and "at" in options:
        raise OptionError(f"{where}: give `delay` or `at`, not both")
    return Settings(
        queue=_queue(options),
        priority=_priority(options),
        due=_at(options),
        delay=_delay(options, "delay"),
        expires=_delay(options, "expires"),
        policy=_policy(options),
        crashes=_crashes(options),
        key=_key(options),
        tags=_tags(options),
        on_done=_on_done(options),
        id=_id(options),
        fresh=_fresh(options),
    )


def _queue(options: Options) -> str | None:
    if "queue" not in options:
        return None
    return check_name("queue", options["queue"])


def check_name(what: str, name: object) -> str:
    """Return a name of a queue, function or app, or say why it cannot be one."""
    if not isinstance(name, str) or not 1 <= len(name) <= 200 or not name.isprintable() or "," in name:
        raise OptionError(
            f"`{what}` is a printable text of 1 to 200 characters without commas, not {name!r:.100}"
        )
    return name


def check_app_name(name: object) -> str:
    """Return an app's name, or say why it cannot be one."""
    if name == "__main__":
        raise OptionError(
            "App(__name__) is '__main__' where its file is run, and the name of the module where a worker "
            "imports it, so neither would see the calls of the other. Write the name out: App('shop')"
        )
    return check_name("App(name)", name)


def check_names(what: str, names: object) -> tuple[str, ...]:
    """Return a list of names; one text is not taken for a list of its letters."""
    if isinstance(names, str) or not isinstance(names, Collection):
        hint = f"; write [{names!r:.120}]" if isinstance(names, str) else ""
        raise OptionError(f"`{what}` is a list of texts, not {names!r:.120}{hint}")
    return tuple(check_name(what, name) for name in names)


def _priority(options: Options) -> int | None:
    value: object = options.get("priority")
    return None if value is None else check_whole("priority", value, -100, 100)


def _at(options: Options) -> int | None:
    value: object = options.get("at")
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise OptionError(f"`at` is an aware datetime, not {value!r}")
    if value.tzinfo is None:
        raise OptionError(
            f"`at` is the naive datetime {value.isoformat()}: it does not say of which time zone. "
            "Write datetime.now(UTC) + ..., or value.replace(tzinfo=...)"
        )
    at = instant(value)
    if not 0 < at <= LAST:
        raise OptionError(f"`at` is {value.isoformat()}; it may be from 1970 to 9999")
    return at


def _delay(options: Options, name: str) -> int | None:
    value: object = options.get(name)
    return None if value is None else check_delay(name, value)


def _policy(options: Options) -> Policy:
    return Policy(
        retry=_retry(options),
        timeout=_limit(options, "timeout"),
        total_timeout=_limit(options, "total_timeout"),
        heartbeat=_limit(options, "heartbeat"),
    )


def _limit(options: Options, name: str) -> int | None:
    """Read a timeout: not given is None, and None is 0, which means none."""
    if name not in options:
        return None
    value: object = options.get(name)
    return 0 if value is None else check_delay(name, value, least=0.001)


def _retry(options: Options) -> RetryRule | None:
    value: object = options.get("retries")
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        value = Retry(value)
    if not isinstance(value, Retry):
        raise OptionError(f"`retries` is a number of repeats (0 or more) or a `Retry`, not {value!r}")
    return RetryRule(
        value.times,
        check_delay("delay", value.delay) / 1e6,
        value.factor,
        check_delay("cap", value.cap) / 1e6,
        value.jitter,
        tuple(class_name(cls) for cls in value.never),
        tuple(class_name(cls) for cls in value.only),
    )


def _crashes(options: Options) -> int | None:
    value: object = options.get("crashes")
    return None if value is None else check_whole("crashes", value, 0, 1_000)


def _key(options: Options) -> Key | None:
    value: object = options.get("key")
    if value is None or isinstance(value, Key):
        return value
    if isinstance(value, str):
        return Key(value)
    raise OptionError(f"`key` is a text or a `Key`, not {value!r}")


def _tags(options: Options) -> tuple[str, ...] | None:
    value: object = options.get("tags")
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence):
        hint = f"; write tags=[{value!r:.120}]" if isinstance(value, str) else ""
        raise OptionError(f"`tags` is a list of texts, not {value!r:.120}{hint}")
    for tag in value:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(tag, str) or not 1 <= len(tag) <= 100 or not is_unicode(tag):
            raise OptionError(f"a tag is a text of 1 to 100 characters, not {tag!r:.120}")
    return tuple(value)  # pyright: ignore[reportUnknownArgumentType]


def _on_done(options: Options) -> tuple[OnDone, ...] | None:
    value: object = options.get("on_done")
    if value is None:
        return None
    callbacks: tuple[object, ...] = tuple(value) if isinstance(value, list | tuple) else (value,)
    for callback in callbacks:
        function = callback
        while isinstance(function, partial):
            function = function.func
        if not isinstance(function, Adding):
            raise OptionError(
                f"`on_done` takes task functions (or functools.partial of one), not {function!r:.120}: it "
                "runs on a worker, after this process may have died. For a function of this process use "
                "task.add_done_callback(...)"
            )
    return cast("tuple[OnDone, ...]", callbacks)


def _fresh(options: Options) -> bool | None:
    value: object = options.get("fresh")
    if value is None or isinstance(value, bool):
        return value
    raise OptionError(f"`fresh` is True or False, not {value!r:.100}")


def _id(options: Options) -> str | None:
    value: object = options.get("id")
    if value is None:
        return None
    text = str(value).lower()
    if not is_id(text):
        raise OptionError(f"`id` is a UUID such as '0198c0de-0000-7000-8000-000000000001', not {value!r}")
    return text
