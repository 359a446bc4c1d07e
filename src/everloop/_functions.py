"""Task functions: what `@app.task` makes of a function."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, TypeVar, Unpack, cast

import msgspec

from everloop._call import Call
from everloop._core.codec import Arguments, Payloads, Shape, parameters_of
from everloop._core.errors import (
    FunctionError,
    NotStorable,
    OptionError,
    ResultNotStorable,
    StoreUnavailable,
)
from everloop._core.ids import following_id
from everloop._core.policy import CRASHES
from everloop._core.records import KeyRule, Lane, NewCall, Parent
from everloop._options import NOTHING, Options, Settings, read_options
from everloop.engine.attempt import CURRENT, Attempt
from everloop.engine.executor import Policy, RetryAfter
from everloop.resources.injection import Scopes, injected

if TYPE_CHECKING:
    from everloop._task import Task

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds before a durable callback begins again that could not read what it is about.
AWAY = 1.0

_policy_json = msgspec.json.Encoder()
_NO_POLICY = Policy()


class Home(Protocol):
    """What a task function needs of its app."""

    name: str
    payloads: Payloads

    @property
    def threads(self) -> Executor: ...

    def begin(self, call: Call[R]) -> Task[R]: ...
    def check_wait(self, name: str) -> None: ...
    async def finished_task(self, id_: str) -> Task[Any]: ...
    async def run_in_process(self, function: TaskFunction[..., Any], attempt: Attempt) -> bytes: ...
    async def settle_inside(self, attempt: Attempt, scopes: Scopes, value: bytes) -> None: ...


class TaskFunction(Generic[P, R]):
    """A decorated function: calling it gives a `Call`.

    Attributes:
        name: The name under which calls are stored; workers find the function by it.
        raises: Exception classes that cross as themselves.
    """

    __module__ = "everloop"

    def __init__(
        self,
        app: Home,
        fn: Callable[P, Any],
        *,
        name: str,
        run: Literal["loop", "thread", "process"],
        settings: Settings,
        aliases: Sequence[str] = (),
        raises: Sequence[type[BaseException]] = (),
    ) -> None:
        self.app = app
        self.fn = fn
        self.name = name
        self.run: Literal["loop", "thread", "process"] = run
        self._is_async = inspect.iscoroutinefunction(fn)
        self.aliases = tuple(aliases)
        self.raises = tuple(raises)
        self.settings = settings
        self.policy = settings.policy
        self.injected = injected(fn)
        self.arguments = Arguments(fn, injected=tuple(self.injected))
        self._overrides = NOTHING
        self._lane = Lane(app.name, settings.queue or "default", name)
        self._plain = _is_plain(settings)
        self._arguments_of = f"the arguments of {name}()"
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """Bind the arguments and return an inert `Call`.

        Raises:
            ArgumentError: They do not fit the signature.
            NotStorable: One would not come back equal, or they are larger than 1 MiB.
        """
        bound = self.app.payloads.wrap(self.arguments.bind(args, kwargs), self._arguments_of)
        return Call(self, bound, self._overrides)

    @property
    def result(self) -> Shape:
        """The shape of what it returns."""
        return self.arguments.result

    def __repr__(self) -> str:
        return f"<everloop.TaskFunction {self.name}>"

    def options(self, **options: Unpack[Options]) -> TaskFunction[P, R]:
        """Return this function with other options for the calls made through it.

        Example:
            ```python
            from everloop import App

            app = App("mail", "memory://")

            @app.task
            async def send(to: str) -> str:
                return f"sent to {to}"

            async def main() -> None:
                urgent = send.options(priority=10, retries=5)
                print(await urgent("ada@example.org"))

            app.run(main())
            ```
        """
        copy: TaskFunction[P, R] = object.__new__(TaskFunction)
        copy.__dict__.update(self.__dict__)
        copy._overrides = self._overrides.then(read_options(options, self.name))
        return copy

    async def plain(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now, without a call: nothing is stored, nothing is retried."""
        async with Scopes.entered(self.injected, dict(kwargs)) as scopes:
            return await self._body(args, {**kwargs, **scopes.values})

    # -- what a call becomes ------------------------------------------------------------------------------

    def new_call(self, call: Call[Any], parent: Attempt | None, *, owned: bool, told: bool = True) -> NewCall:
        """Return the record that adds `call`."""
        overrides = call.overrides
        if overrides is NOTHING and parent is None and self._plain:
            return NewCall(
                id=call.id, lane=self._lane, args=call.args, priority=self.settings.priority, told=told
            )
        s = self.settings.then(overrides)
        policy = b"" if overrides.policy == _NO_POLICY else _policy_json.encode(overrides.policy)
        return NewCall(
            id=call.id,
            lane=Lane(self.app.name, s.queue or "default", self.name),
            args=call.args,
            policy=policy,
            priority=s.priority,
            due=s.due or 0,
            delay=s.delay or 0,
            expires=s.expires,
            crash_limit=CRASHES if s.crashes is None else s.crashes,
            parent=Parent(*parent.parent) if parent is not None else None,
            owned=owned and parent is not None,
            child_key=parent.child_key(self.name, call.args) if parent is not None and not s.fresh else None,
            key=KeyRule(s.key.value, s.key.among, s.key.on_conflict) if s.key is not None else None,
            tags=s.tags or (),
            callbacks=tuple(callback_call(cb, call.id, n) for n, cb in enumerate(s.on_done or ())),
            told=told,
            named=s.id is not None,
        )

    # -- running ------------------------------------------------------------------------------------------

    async def invoke(self, attempt: Attempt) -> bytes:
        """Run the body for one attempt and return the stored form of its result."""
        if self.run == "process":
            return await self.app.run_in_process(self, attempt)
        return await self.invoke_here(attempt)

    async def invoke_here(self, attempt: Attempt) -> bytes:
        """Run it in this process."""
        leased = attempt.leased
        args, kwargs = self.arguments.load(self.app.payloads.unwrap(leased.args))
        if leased.after is not None:
            args = (*args, await self._finished(leased.after))
        if not self.injected:
            return self._store(await self._body(args, kwargs))
        async with Scopes.entered(self.injected, kwargs) as scopes:
            value = self._store(await self._body(args, {**kwargs, **scopes.values}))
            await self.app.settle_inside(attempt, scopes, value)
            return value

    async def _finished(self, id_: str) -> Task[Any]:
        """Return the task that a durable callback is about; where the store is away, try it again later."""
        try:
            return await self.app.finished_task(id_)
        except StoreUnavailable as error:
            # The body has not begun: it is no failure of the callback's.
            raise RetryAfter(AWAY) from error

    def _store(self, value: R) -> bytes:
        try:
            return self.app.payloads.wrap(self.result.dump(value, "result"), f"the result of {self.name}()")
        except NotStorable as error:
            raise ResultNotStorable(f"{self.name}() ran, but its result cannot be stored: {error}") from error

    async def _body(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        if self._is_async:
            result: R = await self.fn(*args, **kwargs)
            return result
        return await _in_thread(self.app.threads, partial(self.fn, *args, **kwargs))


def _is_plain(s: Settings) -> bool:
    return not (s.due or s.delay or s.expires or s.crashes is not None or s.key or s.tags or s.on_done)


async def _in_thread(threads: Executor, work: Callable[[], R]) -> R:
    """Run `work` in a thread and wait for its end, also when this is cancelled: a thread cannot be."""
    context = copy_context()
    future: asyncio.Future[tuple[R | None, BaseException | None]]
    future = asyncio.get_running_loop().run_in_executor(threads, lambda: context.run(_guarded, work))
    while not future.done():
        # Its slot stays taken until the thread has ended; `current().stopping` tells the body.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    value, error = future.result()
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # set when error is None


def _guarded(work: Callable[[], R]) -> tuple[R | None, BaseException | None]:
    """Carry an exception out of the thread as a value: a future refuses StopIteration, for one."""
    attempt = CURRENT.get()
    if attempt is not None:
        attempt.thread = threading.get_ident()
    try:
        return work(), None
    except BaseException as error:  # noqa: BLE001 - carried, not swallowed
        return None, error


def callback_call(callback: Callable[..., Any], after: str, number: int) -> NewCall:
    """Return the record of a durable callback: a task function, or partials of one.

    Its id comes of the call's and of its number among the callbacks: whoever submits a call again with its id
    does not get its callbacks twice.
    """
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    while isinstance(callback, partial):
        args = (*callback.args, *args)
        kwargs = {**callback.keywords, **kwargs}
        callback = callback.func
    function = cast("TaskFunction[..., Any]", callback)  # checked with the options
    bound = function.app.payloads.wrap(
        function.arguments.bind_before_last(args, kwargs), f"the arguments of {function.name}()"
    )
    overrides = function._overrides  # noqa: SLF001 - of our own class
    call: Call[Any] = Call(
        function, bound, msgspec.structs.replace(overrides, id=following_id(after, number))
    )
    call.take()
    new = function.new_call(call, None, owned=False, told=False)
    return msgspec.structs.replace(new, after=after, named=False)


def may_wait(call: NewCall) -> bool:
    """Tell whether adding this call, with its callbacks, may meet a transaction of a user that is open."""
    if call.named or call.key is not None:
        return True
    return bool(call.callbacks) and any(map(may_wait, call.callbacks))


def check_function(fn: object) -> None:
    """Refuse what cannot be a task function, and say what to do.

    Raises:
        FunctionError: It is a method, a lambda, a generator, a class, or no function at all.
    """
    if isinstance(fn, TaskFunction):
        raise FunctionError(f"{fn!r} is a task function already; decorate the plain function once")
    if not inspect.isfunction(fn):
        raise FunctionError(f"@app.task decorates a function (`async def` or `def`), not {fn!r:.120}")
    where = f"{fn.__qualname__}() at {fn.__code__.co_filename}:{fn.__code__.co_firstlineno}"
    if fn.__name__ == "<lambda>":
        raise FunctionError(
            f"a lambda has no name under which a worker could find it ({where}); write a `def`"
        )
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise FunctionError(
            f"{where} is a generator: a call has one result. Return a list, or submit a call per item"
        )
    outer = fn.__qualname__.rpartition(".")[0]
    first = next((parameter.name for parameter in parameters_of(fn)), "")
    if first in ("self", "cls") or (outer and not outer.endswith("<locals>")):
        raise FunctionError(
            f"{where} is a method: a worker has no object to call it on. Move it to module level and pass "
            "what it "
            "needs as arguments"
        )


def place_of(fn: Callable[..., Any], run: str | None) -> Literal["loop", "thread", "process"]:
    """Say where a function runs.

    Raises:
        OptionError: `run` is unknown, or does not fit the function.
    """
    is_async = inspect.iscoroutinefunction(fn)
    if run is None:
        return "loop" if is_async else "thread"
    if run == "process":
        return "process"
    if run not in ("loop", "thread"):
        raise OptionError(
            f"`run` is 'loop' (for `async def`), 'thread' (for `def`) or 'process' (for either), not {run!r}"
        )
    if (run == "loop") != is_async:
        raise OptionError(
            f"run={run!r} does not fit {fn.__name__}(): an `async def` runs on the loop, a `def` in a "
            "thread, and either in a process of its own with run='process'"
        )
    return "loop" if run == "loop" else "thread"
