"""From a URL to a store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from everloop._core.errors import MissingDependency, StoreURLError
from everloop._core.text import near_miss, without_password
from everloop.store.protocol import Store

KNOWN = ("sqlite", "postgresql", "mysql", "memory")
#: Drivers that a URL for SQLAlchemy may name: the store has its own.
_SQLITE = ("sqlite", "sqlite+aiosqlite")
_POSTGRESQL = ("postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg")
_MYSQL = tuple(
    f"{name}{driver}" for name in ("mysql", "mariadb") for driver in ("", "+aiomysql", "+asyncmy", "+pymysql")
)


def check_url(url: object) -> str | None:
    """Return a URL or None.

    Raises:
        StoreURLError: It is no text.
    """
    if isinstance(url, Path):
        raise StoreURLError(f"a store is given by a URL, not by {url!r}; write 'sqlite:///{url}'")
    if url is not None and not isinstance(url, str):
        raise StoreURLError(f"a store is given by a URL such as 'sqlite:///app.db', not by {url!r:.100}")
    return url


def is_embedded(url: str) -> bool:
    """Tell whether a store needs no server: a file, or the memory of this process."""
    return url.partition("://")[0] in ("memory", *_SQLITE)


def store_from_url(url: str) -> Store:
    """Return the unopened store that `url` names.

    `sqlite:///relative.db` and `sqlite:////absolute.db` name files (as in SQLAlchemy), `memory://name`
    a store in this process that all apps of this name share, `memory://` a private one.

    Raises:
        StoreURLError: It names none, and which forms there are.
    """
    scheme, colon, rest = url.partition("://")
    if not colon:
        path = url.removeprefix("sqlite:") or "app.db"
        shown = f"***{url[url.rindex('@') :]}" if "@" in url else url  # a URL that lost its beginning
        raise StoreURLError(f"the store URL {shown!r} has no `scheme://`; for a file write sqlite:///{path}")
    if scheme == "memory":
        from everloop.store.memory import MemoryStore

        return MemoryStore(url=url)
    if scheme in _SQLITE:
        from everloop.store.sql.store import SqliteStore

        return SqliteStore(sqlite_path(url))
    if scheme in _POSTGRESQL:
        return _postgresql(url.replace(scheme, "postgresql", 1))
    if scheme in _MYSQL:
        return _mysql(url.replace(scheme, "mysql", 1))
    raise StoreURLError(
        f"unknown store {scheme!r} in the URL {without_password(url)!r}{near_miss(scheme.lower(), KNOWN)}; "
        f"this version stores in {', '.join(f'{name}://' for name in KNOWN)}, for example "
        f"sqlite:///{rest.rpartition('/')[2] or 'app.db'}"
    )


def _postgresql(url: str) -> Store:
    try:
        from everloop.store.sql.postgresql import PostgresStore
    except ImportError as error:
        # It is not there, or it is there without PostgreSQL's own library.
        if "psycopg" not in (error.name or "psycopg"):
            raise
        raise MissingDependency(
            f'a store on PostgreSQL needs psycopg ({error}): pip install "everloop[postgres]"'
        ) from error
    return PostgresStore(url)


def _mysql(url: str) -> Store:
    try:
        from everloop.store.sql.mysql import MysqlStore
    except ModuleNotFoundError as error:
        if error.name != "pymysql":
            raise
        raise MissingDependency(
            f'a store on MySQL needs PyMySQL ({error}): pip install "everloop[mysql]"'
        ) from error
    return MysqlStore(url)


def sqlite_path(url: str) -> Path:
    """Return the file that an SQLite URL names.

    Raises:
        StoreURLError: It has a host, a query, or no path.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise StoreURLError(
            f"the store URL {url!r} has a query; SQLite takes none: write sqlite:///{parts.path[1:]}"
        )
    if parts.netloc:
        raise StoreURLError(
            f"the store URL {url!r} names the host {parts.netloc!r}, but an SQLite file has none; write "
            f"three slashes for a relative path (sqlite:///{parts.netloc}{parts.path}) or four for an "
            "absolute one"
        )
    path = unquote(parts.path[1:])
    if not path or path == ":memory:":
        raise StoreURLError(
            f"the store URL {url!r} names no file; write sqlite:///app.db, or memory:// for a store that "
            "dies with the process"
        )
    return Path(path).expanduser()
