"""Database URLs: which driver they need, which file they name, and how they are shown."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from everloop._core.errors import ConfigError, MissingDependency
from everloop._core.text import near_miss, without_password

#: The drivers for asyncio of each database, the default first.
_ASYNC = {
    "sqlite": ("aiosqlite",),
    "mysql": ("asyncmy", "aiomysql"),
    "mariadb": ("asyncmy", "aiomysql"),
    "postgresql": ("asyncpg", "psycopg", "psycopg_async"),
    "oracle": ("oracledb_async",),
    "mssql": ("aioodbc",),
}
_BLOCKING = {
    "mysql": ("mysqldb", "pymysql", "mysqlconnector", "cymysql", "pyodbc"),
    "mariadb": ("mysqldb", "pymysql", "mysqlconnector", "mariadbconnector", "pyodbc"),
    "postgresql": ("psycopg2", "psycopg2cffi", "pg8000"),
    "oracle": ("cx_oracle", "oracledb"),
    "mssql": ("pyodbc", "pymssql"),
}
_PORTS = {"mysql": 3306, "postgresql": 5432}
#: What brings a driver.
_INSTALL = {
    "aiosqlite": "everloop[sql]",
    "aiomysql": "everloop[aiomysql]",
    "asyncmy": "everloop[mysql]",
    "asyncpg": "everloop[postgres]",
    "psycopg": "everloop[postgres]",
}
#: Older ones give one task the rows of another whose query was cancelled.
_ASYNCMY = (0, 2, 13)
_MEMORY = (
    "an SQLite database in memory belongs to one connection, so a pool cannot share it; give a file, for "
    "example app.database('sqlite+aiosqlite:////tmp/test.db')"
)


def async_url(url: str) -> str:
    """Return the URL for SQLAlchemy's asyncio engine; one that names no driver gets the default.

    Raises:
        ConfigError: It has no scheme, names an unknown driver or one that blocks the loop, a store that is
            no SQL database, or an SQLite database in memory.
    """
    scheme, colon, rest = url.partition("://")
    if not colon and "@" in url:
        raise ConfigError(
            f"the database URL {'***' + url[url.rindex('@') :]!r} has no `scheme://`; write for example "
            "mysql+asyncmy://user:password@host/database"
        )
    if not colon:
        raise ConfigError(
            f"the database URL {url!r} has no `scheme://`; write for example sqlite+aiosqlite:///{url}"
        )
    name, _, driver = scheme.partition("+")
    if name == "postgres":  # what hosts of PostgreSQL write into DATABASE_URL
        name = "postgresql"
    if name in ("memory", "redis", "rediss"):
        raise ConfigError(
            f"app.database() needs an SQL database, and {scheme}:// is none; without a URL it means the "
            "store's own. Give a URL, for example app.database('sqlite+aiosqlite:///shop.db')"
        )
    if name == "sqlite":
        return _sqlite_url(url, driver, rest)
    if name not in _ASYNC:
        if near := near_miss(name.lower(), _ASYNC):
            raise ConfigError(f"unknown database {name!r} in the URL {without_password(url)!r}{near}")
        return url
    return f"{name}+{_driver(url, name, driver)}://{rest}"


def _driver(url: str, name: str, driver: str) -> str:
    """Return the driver that a URL names, or the default: the first that is installed."""
    known = _ASYNC[name]
    if not driver:
        return next((each for each in known if find_spec(each) is not None), known[0])
    if driver in _BLOCKING.get(name, ()):
        raise ConfigError(
            f"the database URL {without_password(url)!r} names no driver for asyncio ({driver} would block "
            f"the loop); write {name}+{known[0]}://..."
        )
    if driver not in known and name in ("mysql", "mariadb", "postgresql"):
        raise ConfigError(
            f"unknown driver {driver!r} in the URL {without_password(url)!r}{near_miss(driver, known)}; "
            f"write {' or '.join(f'{name}+{each}://...' for each in known[:2])}"
        )
    return driver


def _sqlite_url(url: str, driver: str, rest: str) -> str:
    if driver not in ("", "pysqlite", "aiosqlite"):
        raise ConfigError(
            f"the SQLite driver {driver!r} cannot be used here; write sqlite+aiosqlite://{rest}"
        )
    sqlite = f"sqlite+aiosqlite://{rest}"
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


def same_database(url: str, other: str) -> bool:
    """Tell whether two URLs name one database, as far as their texts say; drivers and users may differ.

    Two names of one server ("localhost" and its address elsewhere) are not seen through: an outcome then is
    committed beside the effect, and not with it.
    """
    mine = sqlite_file(url)
    if mine is not None or url.startswith("sqlite"):
        return mine is not None and mine == sqlite_file(other)
    theirs = _server_database(other)
    return theirs is not None and theirs == _server_database(url)


def _server_database(url: str) -> tuple[str, str, int | None, str, str] | None:
    """Return what tells one database of a server from others; None for a URL of something else."""
    parts = urlsplit(url)
    name = parts.scheme.partition("+")[0]
    family = {"postgres": "postgresql", "mariadb": "mysql"}.get(name, name)
    if family not in _PORTS:
        return None
    # What moves a connection elsewhere: a socket, another host, a search path.
    query = parse_qs(parts.query)
    elsewhere = sorted((key, query[key]) for key in ("host", "options", "unix_socket") if key in query)
    host = "127.0.0.1" if parts.hostname in (None, "localhost", "::1") else parts.hostname
    return family, host or "", parts.port or _PORTS[family], unquote(parts.path[1:]), str(elsewhere)


def check_installed(url: str) -> None:
    """Look for SQLAlchemy and the driver of an `async_url` without importing them.

    Raises:
        MissingDependency: One is not installed, or too old; the message has the line that installs it.
    """
    driver = url.partition("://")[0].partition("+")[2].removesuffix("_async")
    install = _INSTALL.get(driver, "everloop[sql]")
    wanted = {"sqlalchemy": "SQLAlchemy", "greenlet": "greenlet (SQLAlchemy's asyncio needs it)"}
    if driver in _INSTALL:
        wanted[driver] = driver
    for module, name in wanted.items():
        if find_spec(module) is None:
            raise MissingDependency(f'app.database() needs {name}: pip install "{install}"')
    if driver == "asyncmy":
        from importlib.metadata import version  # a fifth of `from everloop import App`

        found = version("asyncmy")
        if tuple(int(number) for number in re.findall(r"\d+", found)[:3]) < _ASYNCMY:
            raise MissingDependency(
                f"app.database() needs asyncmy {'.'.join(map(str, _ASYNCMY))} or newer, not {found}: older "
                "ones give a task the rows of another whose query was cancelled: "
                f'pip install --upgrade "{install}"'
            )


def without_driver(url: str, error: ImportError) -> MissingDependency:
    """Return the error for a driver that cannot be imported, although it seemed to be there."""
    driver = url.partition("://")[0].partition("+")[2].removesuffix("_async")
    install = f'"{_INSTALL[driver]}"' if driver in _INSTALL else error.name or driver
    return MissingDependency(
        f"the database URL {url!r} needs {error.name or driver} ({error}): pip install {install}"
    )
