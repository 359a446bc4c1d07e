"""aiomysql's pool, on Everloop's: change the import, keep the program.

`create_pool`, `acquire`, `cursor`, `commit` and the rest do what aiomysql's own do; the connections, cursors
and errors *are* aiomysql's. The pool is that of `App.database`: waiting ends (`PoolTimeout`), a connection
whose query was cancelled is never given to anybody else, its query ends on the server, and TLS that was asked
for is never left out.
"""

from __future__ import annotations

import asyncio
from inspect import signature
from typing import Any, NoReturn

from everloop._core.errors import MissingDependency, OptionError, UsageError
from everloop.aiomysql.opening import Opening
from everloop.resources.opened import OpenPerLoop

try:
    from aiomysql import (  # type: ignore[import-untyped]  # it has no types
        Connection,
        Cursor,
        DatabaseError,
        DataError,
        DictCursor,
        Error,
        IntegrityError,
        InterfaceError,
        InternalError,
        MySQLError,
        NotSupportedError,
        OperationalError,
        ProgrammingError,
        SSCursor,
        SSDictCursor,
        Warning,  # noqa: A004 - its name there
        escape_dict,  # pyright: ignore[reportAttributeAccessIssue] - PyMySQL's stubs leave it out
        escape_sequence,
        escape_string,
    )

    from everloop.aiomysql.pool import Pool
    from everloop.resources.engine import POOL_TIMEOUT
except ModuleNotFoundError as missing:
    raise MissingDependency(
        f'everloop.aiomysql needs {missing.name}: pip install "everloop[aiomysql]"'
    ) from missing

__all__ = [
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "DictCursor",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "MySQLError",
    "NotSupportedError",
    "OperationalError",
    "Pool",
    "ProgrammingError",
    "SSCursor",
    "SSDictCursor",
    "Warning",
    "create_pool",
    "escape_dict",
    "escape_sequence",
    "escape_string",
]

#: The pools that nobody has closed yet: closed with their loop.
_pools = OpenPerLoop()


def create_pool(
    minsize: int = 1,
    maxsize: int = 10,
    echo: bool = False,  # noqa: FBT001, FBT002 - aiomysql's signature
    pool_recycle: float = -1,
    loop: asyncio.AbstractEventLoop | None = None,
    *,
    pool_timeout: float = POOL_TIMEOUT,
    **connect: Any,
) -> Opening[Pool]:
    """Open a pool of connections, with `await` or with `async with`.

    Args:
        minsize: Connections that are opened at once, so that a wrong password is seen here.
        maxsize: Connections there are at most; 0 sets no limit.
        echo: Whether statements are logged.
        pool_recycle: Seconds after which a connection is renewed; after half an hour by default.
        loop: The running loop, or None.
        pool_timeout: Seconds that `acquire` waits for a free connection; aiomysql's own waits for ever.
        connect: The arguments of `aiomysql.connect`: host, port, user, password, db, autocommit and others.

    Raises:
        OperationalError: The server cannot be reached or lets nobody in; the message says what to do.
        OptionError: An argument is unknown, or a size is out of range (also TypeError and ValueError).
        UsageError: `loop` is not the running one.

    Example:
        ```python
        import asyncio
        from everloop import aiomysql

        async def main() -> None:
            try:
                await aiomysql.create_pool(host="127.0.0.1", port=1, user="shop", db="shop")
            except aiomysql.OperationalError as error:
                print(error.args[1])

        asyncio.run(main())
        ```
    """
    return Opening(
        _create(minsize, maxsize, pool_recycle, loop, pool_timeout, connect | {"echo": echo}), Pool.leave
    )


async def _create(
    minsize: int,
    maxsize: int,
    recycle: float,
    loop: asyncio.AbstractEventLoop | None,
    patience: float,
    connect: dict[str, Any],
) -> Pool:
    if loop is not None and loop is not asyncio.get_running_loop():
        raise UsageError("create_pool(loop=) is not the loop that runs: leave the argument out")
    _check(minsize, maxsize, connect)
    here = _pools.here()
    pool = Pool(here, minsize, maxsize, recycle, patience, connect)
    _ = here.make(pool, f"aiomysql pool {pool.shown}", lambda: pool, Pool.end, Pool.drop)
    try:
        await pool.fill()
    except BaseException:
        await pool.leave()
        raise
    return pool


def _check(minsize: int, maxsize: int, connect: dict[str, Any]) -> None:
    if minsize < 0 or maxsize < 0 or 0 < maxsize < minsize:
        raise OptionError(
            "create_pool() takes 0 <= minsize <= maxsize, or maxsize=0 for no limit, not "
            f"minsize={minsize!r}, maxsize={maxsize!r}"
        )
    try:
        _ = signature(Connection).bind(**connect)
    except TypeError as error:
        raise OptionError(f"create_pool() takes what aiomysql.connect takes, but {error}") from error


def connect(*_: object, **__: object) -> NoReturn:
    """Refuse: connections come from a pool."""
    raise UsageError(
        "everloop.aiomysql has no connect(): take a connection from a pool, `async with pool.acquire() as "
        "conn:`. For one of your own, aiomysql.connect is still there"
    )


def __getattr__(name: str) -> Any:
    if name == "sa":
        raise AttributeError(
            "everloop.aiomysql has no `sa`: app.database('mysql+aiomysql://...').engine is SQLAlchemy's own"
        )
    raise AttributeError(f"module 'everloop.aiomysql' has no attribute {name!r}")
