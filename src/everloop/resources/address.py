"""Database URLs: which driver they need, which file they name, and how they are shown."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, unquote

from everloop._core.errors import ConfigError, MissingDependency
from everloop._core.text import near_miss, without_password

#: The driver for asyncio where a URL names none, or one that would block the loop.
_ASYNC = {
    "sqlite": "sqlite+aiosqlite",
    "mysql": "mysql+aiomysql",
    "mariadb": "mariadb+aiomysql",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "oracle": "oracle+oracledb_async",
    "mssql": "mssql+aioodbc",
}
_BLOCKING = {
    "mysql": ("mysqldb", "pymysql", "mysqlconnector", "cymysql", "pyodbc"),
    "mariadb": ("mysqldb", "pymysql", "mysqlconnector", "mariadbconnector", "pyodbc"),
    "postgresql": ("psycopg2", "psycopg2cffi", "pg8000"),
    "postgres": ("psycopg2", "psycopg2cffi", "pg8000"),
    "oracle": ("cx_oracle",),
    "mssql": ("pyodbc", "pymssql"),
}
_MEMORY = (
    "an SQLite database in memory belongs to one connection, so a pool cannot share it; give a file, for "
    "example app.database('sqlite+aiosqlite:////tmp/test.db')"
)


def async_url(url: str) -> str:
    """Return the URL for SQLAlchemy's asyncio engine; `sqlite:///shop.db` gets its driver.

    Raises:
        ConfigError: It has no scheme, names a driver that blocks the loop, a store that is no SQL
            database, or an SQLite database in memory.
    """
    scheme, colon, rest = url.partition("://")
    if not colon:
        raise ConfigError(
            f"the database URL {url!r} has no `scheme://`; write for example sqlite+aiosqlite:///{url}"
        )
    name, _, driver = scheme.partition("+")
    if name in ("memory", "redis", "rediss"):
        raise ConfigError(
            f"app.database() needs an SQL database, and {scheme}:// is none; without a URL it means the "
            "store's own. Give a URL, for example app.database('sqlite+aiosqlite:///shop.db')"
        )
    if name != "sqlite":
        if name in _ASYNC and (not driver or driver in _BLOCKING.get(name, ())):
            raise ConfigError(
                f"the database URL {without_password(url)!r} names no driver for asyncio"
                + (f" ({driver} would block the loop)" if driver else "")
                + f"; write {_ASYNC[name]}://..."
            )
        if name not in _ASYNC and (near := near_miss(name.lower(), _ASYNC)):
            raise ConfigError(f"unknown database {name!r} in the URL {without_password(url)!r}{near}")
        return url
    if driver not in ("", "pysqlite", "aiosqlite"):
        raise ConfigError(
            f"the SQLite driver {driver!r} cannot be used here; write sqlite+aiosqlite://{rest}"
        )
    sqlite = f"{_ASYNC['sqlite']}://{rest}"
    if sqlite_file(sqlite) is None:
        raise ConfigError(f"app.database({url!r}): {_MEMORY}")
    return sqlite


def sqlite_file(url: str) -> Path | None:
    """Return the file that an SQLite URL names; None for another database, or one in memory."""
    scheme, _, rest = url.partition("://")
    location, _, query = rest.partition("?")
    path = unquote(location.partition("/")[2])
    if path.startswith("file:"):  # SQLite's own URI form, with `uri=true`
        path = path.removeprefix("file:")
    memory = path in ("", ":memory:") or "memory" in parse_qs(query).get("mode", ())
    if scheme.partition("+")[0] != "sqlite" or memory:
        return None
    return Path(path).expanduser().resolve()


def check_installed(url: str) -> None:
    """Look for SQLAlchemy and the driver of SQLite without importing them.

    Raises:
        MissingDependency: One is not installed; the message has the line that installs it.
    """
    wanted = {"sqlalchemy": "SQLAlchemy", "greenlet": "greenlet (SQLAlchemy's asyncio needs it)"}
    if url.startswith("sqlite"):
        wanted["aiosqlite"] = "aiosqlite"
    for module, name in wanted.items():
        if find_spec(module) is None:
            raise MissingDependency(f'app.database() needs {name}: pip install "everloop[sql]"')
