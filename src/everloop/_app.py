"""The app: declares functions and resources, and wires them to the store."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, Self, TypeVar, Unpack, cast, overload
from weakref import WeakKeyDictionary, WeakSet

from everloop._client import EXIT_WAIT, Client
from everloop._core import forks
from everloop._core.calls import Event
from everloop._core.codec import Codec, Payloads
from everloop._core.errors import FunctionError, LeaseLost, OptionError
from everloop._core.ids import new_id
from everloop._core.names import class_name, module_name
from everloop._core.policy import Delay, Keep, check_classes, check_delay, check_whole
from everloop._core.records import Lane, Outcome
from everloop._core.text import without_password
from everloop._functions import TaskFunction, check_function, place_of
from everloop._notices import notice
from everloop._options import Options, check_app_name, check_name, check_names, read_options
from everloop._runner import run_main
from everloop._sessions import Sessions
from everloop._settings import check_keep, check_level, check_stall_limit
from everloop._sync import Sync
from everloop.engine.attempt import Attempt
from everloop.engine.executor import Runnable
from everloop.engine.keeper import STALL_LIMIT
from everloop.engine.processes import here
from everloop.engine.processes.home import check_shared, default_size, home_of
from everloop.engine.processes.pool import ProcessPool
from everloop.engine.services.pruner import EVERY
from everloop.engine.session import LEASE, Session
from everloop.resources.database import Database, Databases
from everloop.resources.http import http_resource
from everloop.resources.injection import Scopes
from everloop.resources.resource import Resource, ResourcePool
from everloop.store.protocol import Store
from everloop.store.url import check_url, is_embedded, store_from_url

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_KEEP = Keep()
#: Threads for `def` functions, at most. Slots bound the bodies that run; one that waits for a child gives its
#: slot back and keeps its thread, so threads need no bound of their own.
THREADS = 1_000_000


#: The apps of this process.
APPS: WeakSet[App] = WeakSet()


class TaskDecorator(Protocol):
    """What `@app.task(...)` with options is."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> TaskFunction[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> TaskFunction[P, R]: ...


class App(Client):
    """A named set of task functions and resources, on one store.

    Args:
        name: Apps of one name share their calls, also from different processes.
        store: The store's URL. Without one it is `EVERLOOP_STORE`, or an SQLite file below the current
            folder, whose path is printed.
        imports: Modules that declare further functions of this app; a worker imports them.
        raises: Exception classes that cross processes as themselves, beside the builtins.
        codecs: How payloads are changed before they are stored: compressed, encrypted, kept elsewhere.
        lease: Seconds after which the calls of a dead process are taken over.
        stall_limit: Seconds after which a worker ends its process when its loop does not answer, so that
            others take its calls over; 1 at least. None never does.
        cancel_wait: Seconds that a cancelled task waits for the remote end; the lease by default, and 2 when
            its program is ending.
        keep: How long finished calls are kept; its workers prune what is older. None keeps everything.
        logs: The lowest level of what tasks log that is kept with their calls; their prints are kept with it.
            None keeps neither.
        embed: Whether a use without a worker may run one in this process; by default where the store is
            embedded, too (a file, or memory). On a server, workers are processes that somebody runs.
        process_pool: How many `run="process"` bodies a worker runs at once; the number of cores by default.

    Example:
        ```python
        import asyncio
        from everloop import App

        app = App("sums", "memory://")

        @app.task(retries=3)
        async def add(x: int, y: int) -> int:
            return x + y

        async def main() -> None:
            print(await asyncio.gather(add(1, 2), add(3, 4)))

        app.run(main())
        ```
    """

    __module__ = "everloop"

    def __init__(  # noqa: PLR0913 - each is a setting by name
        self,
        name: str,
        store: str | None = None,
        *,
        imports: Sequence[str] = (),
        raises: Sequence[type[BaseException]] = (),
        codecs: Sequence[Codec] = (),
        lease: Delay = LEASE,
        stall_limit: Delay | None = STALL_LIMIT,
        cancel_wait: Delay | None = None,
        keep: Keep | None = _KEEP,
        logs: str | int | None = "INFO",
        embed: bool | None = None,
        process_pool: int | None = None,
    ) -> None:
        self.name = check_app_name(name)
        self.payloads = Payloads(codecs)
        self.imports = check_names("App(imports=)", imports)
        self.lease = check_delay("App(lease=)", lease, least=0.5) / 1e6
        self.stall_limit = check_stall_limit(stall_limit)
        self.cancel_wait, self._exit_wait = self.lease, min(self.lease, EXIT_WAIT)
        if cancel_wait is not None:
            self.cancel_wait = self._exit_wait = check_delay("App(cancel_wait=)", cancel_wait) / 1e6
        self._keep = check_keep(keep)
        self._logs = check_level(logs)
        self._url = check_url(store)
        self._functions = {}
        self._aliases: dict[str, TaskFunction[..., Any]] = {}
        self._raises = {class_name(cls): cls for cls in check_classes("App(raises=)", raises)}
        self._resources = ResourcePool()
        self._databases = Databases(self._resources, lambda: self.store_url)
        self._threads: WeakKeyDictionary[asyncio.AbstractEventLoop, Executor] = WeakKeyDictionary()
        self._processes: WeakKeyDictionary[asyncio.AbstractEventLoop, ProcessPool] = WeakKeyDictionary()
        self._pool_size = (
            default_size()
            if process_pool is None
            else check_whole("App(process_pool=)", process_pool, 1, 10_000)
        )
        self._interrupt_cancels = False
        self._embed = embed
        self._module = sys._getframe(1).f_globals.get("__name__", "__main__")  # noqa: SLF001 - for the command in a notice
        self._sessions = Sessions(
            self._make_session,
            self.serves,
            self._close_resources,
            self.worker_command,
            embeds=self._embeds,
        )
        APPS.add(self)
        forks.begin_anew(self)

    def after_fork(self) -> None:
        """Begin anew in a forked child: threads and processes are the parent's."""
        forks.leave(dict(self._threads), dict(self._processes))
        self._threads = WeakKeyDictionary()
        self._processes = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<everloop.App {self.name} on {without_password(self._url or 'the default store')}>"

    # -- declaring ------------------------------------------------------------------------------------------

    @overload
    def task(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> TaskFunction[P, R]: ...
    @overload
    def task(self, fn: Callable[P, R], /) -> TaskFunction[P, R]: ...
    @overload
    def task(
        self,
        *,
        name: str = ...,
        aliases: Sequence[str] = ...,
        raises: Sequence[type[BaseException]] = ...,
        run: Literal["loop", "thread", "process"] = ...,
        **options: Unpack[Options],
    ) -> TaskDecorator: ...
    def task(  # type: ignore[misc]  # mypy compares **options with a TypedDict
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        name: str = "",
        aliases: Sequence[str] = (),
        raises: Sequence[type[BaseException]] = (),
        run: Literal["loop", "thread", "process"] | None = None,
        **options: Any,
    ) -> Any:
        """Make a function a task function: calling it gives a durable `Call`.

        Args:
            fn: An `async def`, which runs on the worker's loop, or a `def`, which runs in a thread.
            name: The name under which calls are stored; the function's own by default.
            aliases: Old names whose stored calls this function runs, too.
            raises: Exception classes that cross as themselves.
            run: "loop", "thread", or "process" for work that keeps a core busy: it then runs in a process of
                its own, which is killed when the body does not stop.
            **options: Defaults of each call (see `everloop.Options`).

        Raises:
            FunctionError: It cannot be one, and what to do instead; or the name is taken.
            OptionError: An option is unknown, or its value is out of range.
        """

        def decorate(fn: Callable[..., Any]) -> TaskFunction[..., Any]:
            check_function(fn)
            settings = read_options(cast("Options", options), f"@app.task on {fn.__name__}()")
            if settings.id is not None:
                raise OptionError(
                    f"@app.task on {fn.__name__}(): `id` is one call's, so it is given to that: "
                    f"{fn.__name__}(...).options(id=...)"
                )
            function: TaskFunction[..., Any] = TaskFunction(
                self,
                fn,
                name=check_name("name", name or fn.__name__),
                run=place_of(fn, run),
                settings=settings,
                aliases=check_names("aliases", aliases),
                raises=check_classes("raises", raises),
            )
            self._declare(function)
            return function

        return decorate if fn is None else decorate(fn)

    def _declare(self, function: TaskFunction[..., Any]) -> None:
        for name in (function.name, *function.aliases):
            other = self._functions.get(name)
            if other is not None and not _redefined(other, function):
                raise FunctionError(
                    f"the app {self.name!r} has a task function {name!r} already ({_where_is(other)}); "
                    f"give this one ({_where_is(function)}) another with @app.task(name=...)"
                )
            self._functions[name] = function

    def resource(self, fn: Callable[[], AsyncIterator[T]], /) -> Resource[T]:
        """Declare something that this process shares: opened at first use, closed with the app.

        The function is an asynchronous generator of no parameters that yields once. The resource stands
        as a default value, `session: ClientSession = Use(http)`, and works as `async with http() as
        session` anywhere.
        """
        return self._resources.declare(fn)

    @cached_property
    def http(self) -> Resource[Any]:
        """The shared `aiohttp.ClientSession` of this process; it keeps no cookies between tasks.

        Example:
            ```python
            import aiohttp
            from everloop import App, Use

            app = App("pages", "memory://")

            @app.task
            async def fetch(url: str, session: aiohttp.ClientSession = Use(app.http)) -> int:
                async with session.get(url) as response:
                    return response.status
            ```
        """
        return self._resources.declare(http_resource, name="http")

    def database(self, url: str | None = None, /, **engine_options: Any) -> Database:
        """Return the global pool for a database: one SQLAlchemy `AsyncEngine` per process and loop.

        It is the same object each time for the same URL and options.

        Args:
            url: A SQLAlchemy URL such as `sqlite+aiosqlite:///shop.db`; None is the store's own
                database, where a task's effect and its outcome are committed together.
            **engine_options: Passed to `sqlalchemy.ext.asyncio.create_async_engine`.
        """
        return self._databases.get(url, engine_options)

    @cached_property
    def sync(self) -> Sync:
        """The app for code without a loop: `app.sync.submit(call)`, `app.sync.run(call)` and so on.

        Example:
            ```python
            from everloop import App

            app = App("sums", "memory://")

            @app.task
            async def add(x: int, y: int) -> int:
                return x + y

            print(app.sync.run(add(1, 2)))
            ```
        """
        return Sync(self)

    @property
    def functions(self) -> Mapping[str, TaskFunction[..., Any]]:
        """The task functions of this app by name."""
        for module in self.imports:
            import_module(module)
        return self._functions

    # -- opening --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open a client on the running loop: it submits and observes, and runs nothing. Re-entrant."""
        await self._sessions.acquire()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._sessions.release()

    @asynccontextmanager
    async def worker(
        self, *, concurrency: int = 100, queues: Sequence[str] | None = None, grace: Delay = 0.0
    ) -> AsyncGenerator[Self]:
        """Run a worker inside the running loop.

        Args:
            concurrency: How many bodies run at once; those that wait for their children do not count.
            queues: Which queues it serves; by default those that the functions name, and "default".
            grace: Seconds that running bodies get to finish on leaving; what runs longer is released.
        """
        check_whole("concurrency", concurrency, 1)
        names = None if queues is None else check_names("queues", queues)
        async with self._sessions.worker(names, concurrency, check_delay("grace", grace) / 1e6):
            yield self

    def run(
        self,
        main: Coroutine[Any, Any, T],
        *,
        concurrency: int = 100,
        queues: Sequence[str] | None = None,
        on_interrupt: Literal["detach", "cancel"] = "detach",
    ) -> T:
        """Run `main` on a new loop with an embedded worker, and return what it returns.

        On Ctrl-C the waiting ends and the calls go on: run the program again, or a worker. With
        `on_interrupt="cancel"` what `main` awaits is cancelled.

        Raises:
            UsageError: A loop runs in this thread already.
        """
        if on_interrupt not in ("detach", "cancel"):
            raise OptionError(f"`on_interrupt` is 'detach' or 'cancel', not {on_interrupt!r}")
        self._interrupt_cancels = on_interrupt == "cancel"

        def inside() -> AbstractAsyncContextManager[object]:
            return self.worker(concurrency=concurrency, queues=queues)

        return run_main(main, inside)

    def serves(self, queues: Sequence[str] | None) -> dict[Lane, Runnable]:
        """Return what a worker of these queues serves: each function in each queue."""
        functions = self.functions
        if queues is None:
            named = {f.settings.queue for f in functions.values() if f.settings.queue}
            queues = sorted({"default", *named})
        return {Lane(self.name, q, name): f for q in queues for name, f in functions.items()}

    # -- the store ------------------------------------------------------------------------------------------

    @cached_property
    def store_url(self) -> str:
        """The URL of the store: given, from `EVERLOOP_STORE`, or a file below the current folder."""
        url = self._url or os.environ.get("EVERLOOP_STORE")
        if url == "memory://":
            return f"memory://{self.name}-{new_id()}"  # private, but the same for each loop of this app
        if url:
            return url
        folder = Path.cwd() / ".everloop"
        folder.mkdir(exist_ok=True)
        path = folder / f"{''.join(c if c.isalnum() else '-' for c in self.name)}.db"
        notice(f"the calls of {self.name!r} are stored in {path}")
        return f"sqlite:///{path}"

    def _embeds(self) -> bool:
        if here.IN_CHILD:
            return False
        return is_embedded(self.store_url) if self._embed is None else self._embed

    def open_store(self) -> Store:
        """Return an unopened store on this app's URL.

        Raises:
            StoreURLError: The URL names no store.
        """
        return store_from_url(self.store_url)

    def _make_session(self) -> Session:
        if here.IN_CHILD:
            check_shared(self.store_url)
            # Its process is watched by the worker that has started it: nothing else has to end it.
            return Session(self.open_store(), self.name, lease=self.lease, stall_limit=None)
        pruning = None if self._keep is None else self._keep.pruning(self.name, EVERY)
        return Session(
            self.open_store(),
            self.name,
            lease=self.lease,
            stall_limit=self.stall_limit,
            processes=self._pool_size,
            pruning=pruning,
            logs=self._logs,
            dead=self._sessions.dead,
        )

    @property
    def threads(self) -> Executor:
        """Where `def` functions run that the running loop serves."""
        loop = asyncio.get_running_loop()
        threads = self._threads.get(loop)
        if threads is None:
            threads = ThreadPoolExecutor(THREADS, thread_name_prefix="everloop-body")
            self._threads[loop] = threads
        return threads

    def run_bodies_in(self, executor: Executor) -> None:
        """Run `def` functions that the running loop serves there."""
        self._threads[asyncio.get_running_loop()] = executor

    async def run_in_process(self, function: TaskFunction[..., Any], attempt: Attempt) -> bytes:
        """Run one call in a process of the running loop's worker."""
        home = home_of(self.name, function.name, (self._module, function.fn.__module__))
        loop = asyncio.get_running_loop()
        pool = self._processes.get(loop)
        if pool is None:
            pool = self._processes[loop] = ProcessPool()
        return await pool.run(home, attempt)

    async def _close_resources(self) -> None:
        loop = asyncio.get_running_loop()
        threads = self._threads.pop(loop, None)
        if threads is not None:
            threads.shutdown(wait=False)  # a body that nothing could stop is left behind, and ends by itself
        processes = self._processes.pop(loop, None)
        if processes is not None:
            await processes.close()
        await self._resources.aclose()

    async def settle_inside(self, attempt: Attempt, scopes: Scopes, value: bytes) -> None:
        """Commit the outcome with the task's own transaction, when that is on the store's database."""
        transaction = scopes.own_transaction()
        if transaction is None:
            return
        session = await self._sessions.opened()
        outcome = Outcome(attempt.leased.id, attempt.leased.fence, Event.SUCCEED, value)

        async def settle(connection: AsyncConnection) -> None:
            wake = await session.store.settle_on(connection, outcome)
            if wake is None:
                raise LeaseLost("another worker owns this call now; its transaction was rolled back")

            def committed() -> None:
                attempt.settled_inside = True
                wake()
                session.turns.look()

            transaction.after_commit = committed

        transaction.before_commit = settle

    def worker_command(self) -> str:
        """Return the command that starts a worker for this app."""
        module = sys.modules.get(self._module)
        found = [key for key, value in vars(module).items() if value is self] if module else []
        return f"`everloop worker {module_name(self._module)}:{found[0] if found else 'app'}`"


def _redefined(old: TaskFunction[..., Any], new: TaskFunction[..., Any]) -> bool:
    """Whether this is the same definition again: a module imported twice, a cell run anew."""
    # What a factory or a loop makes at one place are different functions, each with variables of its own.
    return (old.fn.__module__, old.fn.__qualname__) == (new.fn.__module__, new.fn.__qualname__) and (
        not new.fn.__closure__
        and old.fn.__code__.co_filename == new.fn.__code__.co_filename
        and old.fn.__code__.co_firstlineno == new.fn.__code__.co_firstlineno
    )


def _where_is(function: TaskFunction[..., Any]) -> str:
    code = function.fn.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
