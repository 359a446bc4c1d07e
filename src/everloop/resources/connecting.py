"""How connections to MySQL, MariaDB and PostgreSQL servers are opened: in bounded time, as safe as asked.

SQLAlchemy calls `ServerConnector.open` in place of the driver's `connect`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from inspect import signature
from typing import Any
from urllib.parse import quote, urlencode

from sqlalchemy.engine import URL

from everloop._core.errors import ConfigError
from everloop.resources.abandoned import Abandoned
from everloop.resources.patience import to_the_end
from everloop.resources.refusal import cannot_connect
from everloop.resources.tls import tls_context

#: The drivers that are opened here.
DRIVERS = ("aiomysql", "asyncmy", "asyncpg", "psycopg", "psycopg_async")
MYSQL_DRIVERS = ("aiomysql", "asyncmy")
#: Seconds to connect, where no `connect_timeout` in the URL or in `connect_args` says otherwise.
CONNECT_TIMEOUT = 10
#: Seconds that a cancelled task still spends on a connection that is being opened: servers count handshakes
#: that break off, and MySQL locks the whole machine out after 100 (`max_connect_errors`).
HANDSHAKE_GRACE = 1.0
#: Parameters of libpq that asyncpg knows in a DSN only, the words of every other driver and tool.
OF_DSN = (
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "application_name",
    "options",
    "target_session_attrs",
)
#: Parameters of libpq about its own sockets, which asyncpg would take for settings of the server.
LIBPQS_ALONE = frozenset(
    ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
)

NO_TLS = "the server does not offer TLS"

Connect = Callable[..., Awaitable[Any]]


class ServerConnector:
    """Opens the connections of one pool.

    Args:
        url: The URL of the pool.
        connect: What opens a connection in place of the driver's own function.
    """

    def __init__(self, url: URL, connect: Connect | None = None) -> None:
        self._url = url
        self._driver = url.get_driver_name()
        self._given = connect
        self._last: dict[str, Any] = {}
        self.abandoned = Abandoned(self._once_more) if self._driver in MYSQL_DRIVERS else None

    async def open(self, *positional: Any, **arguments: Any) -> Any:
        """Open a connection; when cancelled meanwhile, close it again.

        Raises:
            CannotConnect: The server is not there, lets this user not in, or offers no TLS.
            ConfigError: The arguments cannot be used.
        """
        self._last = arguments = self._checked(arguments)
        connection, cancelled = await to_the_end(self._connected(positional, arguments), HANDSHAKE_GRACE)
        if cancelled:
            await _close(self._driver, connection)
            raise asyncio.CancelledError
        return connection

    def _checked(self, arguments: dict[str, Any]) -> dict[str, Any]:
        checked = dict(arguments)
        if self._driver == "asyncpg":
            for name in LIBPQS_ALONE & checked.keys():
                del checked[name]
            if "dsn" not in checked and (found := {k: checked.pop(k) for k in OF_DSN if k in checked}):
                checked["dsn"] = f"postgresql://?{urlencode(found, quote_via=quote)}"
            limit = checked.pop("connect_timeout", checked.get("timeout", CONNECT_TIMEOUT))
            return checked | {"timeout": _seconds(limit)}
        checked.setdefault("connect_timeout", CONNECT_TIMEOUT)
        if self.abandoned is not None:
            checked["charset"] = checked.get("charset") or "utf8mb4"
            checked["ssl"] = tls_context(checked.get("ssl"), checked.pop("ssl_verify", None))
        return checked

    async def _connected(self, positional: tuple[Any, ...], arguments: dict[str, Any]) -> Any:
        try:
            if self.abandoned is None:
                return await self._connect(*positional, **arguments)
            # The drivers' own time limit ends where the handshake begins.
            async with asyncio.timeout(arguments["connect_timeout"]):
                connection = await self._connect(*positional, **arguments)
                try:
                    self._check_tls(connection, arguments)
                    await self.abandoned.identify(connection)
                except BaseException:
                    connection.close()
                    raise
                return connection
        except ConfigError:
            raise
        except Exception as error:
            raise cannot_connect(self._url, error) from error

    def _check_tls(self, connection: Any, arguments: dict[str, Any]) -> None:
        """Refuse what a `connect` of the user's own has opened in plaintext: see `_aiomysql`."""
        if arguments["ssl"] is not None and not connection._secure:  # noqa: SLF001 - nothing public tells
            raise ConnectionError(NO_TLS)

    async def _connect(self, *positional: Any, **arguments: Any) -> Any:
        connect = self._given
        if connect is None and self._driver == "aiomysql":
            connect = _aiomysql
        elif connect is None and self._driver.startswith("psycopg"):
            connect = import_module("psycopg").AsyncConnection.connect
        elif connect is None:
            connect = import_module(self._driver).connect
        return await connect(*positional, **arguments)

    async def _once_more(self) -> Any:
        return await self._connect(**self._last)


def _seconds(given: Any) -> float:
    try:
        return float(given)
    except (TypeError, ValueError):
        raise ConfigError(f"the parameter connect_timeout is a number of seconds, not {given!r}") from None


async def _aiomysql(**arguments: Any) -> Any:
    """Connect as `aiomysql.connect` does, but not in plaintext where TLS was asked for.

    aiomysql goes on without TLS when the server offers none, and says nothing.
    """
    aiomysql = import_module("aiomysql")
    constants = import_module("pymysql.constants")
    _ = signature(aiomysql.Connection).bind(**arguments)  # its `__del__` fails after a wrong argument
    connection: Any = aiomysql.Connection(**arguments)
    log_in = connection._request_authentication  # noqa: SLF001 - the moment before anything secret is sent

    async def log_in_safely() -> None:
        if arguments.get("ssl") is not None and not connection.server_capabilities & constants.CLIENT.SSL:
            raise aiomysql.OperationalError(constants.CR.CR_SSL_CONNECTION_ERROR, NO_TLS)
        await log_in()

    connection._request_authentication = log_in_safely  # noqa: SLF001
    try:
        await connection._connect()  # noqa: SLF001 - what `aiomysql.connect` awaits
    except BaseException:
        connection.close()  # aiomysql leaves the socket open when it is cancelled here
        raise
    del connection._request_authentication  # noqa: SLF001 - a circle of references
    return connection


async def _close(driver: str, connection: Any) -> None:
    if driver == "asyncpg":
        connection.terminate()
    elif driver in MYSQL_DRIVERS:
        connection.close()
    else:
        await connection.close()
