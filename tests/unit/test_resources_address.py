"""Database URLs: the driver that asyncio needs, the file that SQLite means, and what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import aiosqlite
import pytest

from everloop._core.errors import ConfigError, MissingDependency
from everloop._core.text import without_password
from everloop.resources import address
from everloop.resources.address import async_url, check_installed, sqlite_file, without_driver
from everloop.resources.database import Database
from everloop.resources.resource import ResourcePool


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("sqlite:///shop.db", "sqlite+aiosqlite:///shop.db"),
        ("sqlite+pysqlite:////data/shop.db", "sqlite+aiosqlite:////data/shop.db"),
        ("sqlite+aiosqlite:///shop.db?timeout=3", "sqlite+aiosqlite:///shop.db?timeout=3"),
        ("mysql+aiomysql://root@localhost/shop", "mysql+aiomysql://root@localhost/shop"),
        ("mysql://ada:secret@db/shop", "mysql+asyncmy://ada:secret@db/shop"),
        ("mariadb://db/shop", "mariadb+asyncmy://db/shop"),
        ("postgresql+psycopg://db/shop", "postgresql+psycopg://db/shop"),
        ("postgresql://db/shop?ssl=require", "postgresql+asyncpg://db/shop?ssl=require"),
        ("postgres://db/shop", "postgresql+asyncpg://db/shop"),
        ("snowflake+aio://db/shop", "snowflake+aio://db/shop"),
    ],
)
def test_a_url_gets_the_driver_for_asyncio(given: str, used: str) -> None:
    assert async_url(given) == used


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "shop.db",
            "the database URL 'shop.db' has no `scheme://`; write for example sqlite+aiosqlite:///shop.db",
        ),
        (
            "mysql+aiomysql:/ada:secret@db/shop",
            (
                "the database URL '***@db/shop' has no `scheme://`; write for example "
                "mysql+asyncmy://user:password@host/database"
            ),
        ),
        (
            "mysql+mysqldb://ada:secret@db/shop",
            (
                "the database URL 'mysql+mysqldb://ada:***@db/shop' names no driver for asyncio (mysqldb "
                "would block the loop); write mysql+asyncmy://..."
            ),
        ),
        (
            "mysql+aiomysq://ada:secret@db/shop",
            (
                "unknown driver 'aiomysq' in the URL 'mysql+aiomysq://ada:***@db/shop'; did you mean "
                "'aiomysql'?; write mysql+asyncmy://... or mysql+aiomysql://..."
            ),
        ),
        (
            "postgresql+asyncgp://db/shop",
            "unknown driver 'asyncgp' in the URL 'postgresql+asyncgp://db/shop'; did you mean 'asyncpg'?; ",
        ),
        (
            "postgresql+psycopg2://db/shop",
            (
                "the database URL 'postgresql+psycopg2://db/shop' names no driver for asyncio (psycopg2 "
                "would block the loop); write postgresql+asyncpg://..."
            ),
        ),
        (
            "postgresq://db/shop",
            "unknown database 'postgresq' in the URL 'postgresq://db/shop'; did you mean ",
        ),
        (
            "memory://",
            (
                "app.database() needs an SQL database, and memory:// is none; without a URL it means the "
                "store's own. Give a URL, for example app.database('sqlite+aiosqlite:///shop.db')"
            ),
        ),
        (
            "sqlite://",
            (
                "app.database('sqlite://'): an SQLite database in memory belongs to one connection, so a "
                "pool cannot share it; give a file, for example app.database('sqlite+aiosqlite:////tmp/test.db')"
            ),
        ),
        (
            "sqlite:///:memory:",
            "app.database('sqlite:///:memory:'): an SQLite database in memory belongs to one",
        ),
        (
            "sqlite:///file:a?mode=memory&uri=true",
            "app.database('sqlite:///file:a?mode=memory&uri=true'): an SQLite",
        ),
        (
            "sqlite+pysqlcipher:///a.db",
            "the SQLite driver 'pysqlcipher' cannot be used here; write sqlite+aiosqlite:",
        ),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_at_once_with_what_to_write(given: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Database(ResourcePool(), given, store_url=str)

    assert str(caught.value).startswith(message)


def test_the_file_of_a_url_is_absolute(workdir: Path) -> None:
    assert sqlite_file("sqlite:///shop.db") == workdir / "shop.db"
    assert sqlite_file("sqlite+aiosqlite:////data/a%20b.db?timeout=3") == Path("/data/a b.db")
    assert sqlite_file("sqlite:///file:shop.db?mode=ro&uri=true") == workdir / "shop.db"
    assert sqlite_file("sqlite:///~/shop.db") == Path.home() / "shop.db"
    assert sqlite_file("sqlite://") is None
    assert sqlite_file("mysql+aiomysql://db/shop") is None


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("sqlalchemy", "SQLAlchemy"),
        ("greenlet", "greenlet (SQLAlchemy's asyncio needs it)"),
        ("aiosqlite", "aiosqlite"),
    ],
)
def test_what_is_not_installed_is_told_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, missing: str, named: str
) -> None:
    monkeypatch.setattr(address, "find_spec", lambda name: None if name == missing else object())

    with pytest.raises(MissingDependency) as caught:
        Database(ResourcePool(), "sqlite:///shop.db", store_url=str)
    assert str(caught.value) == f'app.database() needs {named}: pip install "everloop[sql]"'


def test_only_sqlite_needs_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "find_spec", lambda name: None if name == "aiosqlite" else object())

    check_installed("mysql+aiomysql://db/shop")


@pytest.mark.parametrize(
    ("url", "missing", "line"),
    [
        ("mysql+asyncmy://db/shop", "asyncmy", 'asyncmy: pip install "everloop[mysql]"'),
        ("mysql+aiomysql://db/shop", "aiomysql", 'aiomysql: pip install "everloop[aiomysql]"'),
        ("postgresql+asyncpg://db/shop", "asyncpg", 'asyncpg: pip install "everloop[postgres]"'),
        ("postgresql+psycopg_async://db/shop", "psycopg", 'psycopg: pip install "everloop[postgres]"'),
        ("mysql+asyncmy://db/shop", "sqlalchemy", 'SQLAlchemy: pip install "everloop[mysql]"'),
    ],
)
def test_a_driver_that_is_not_installed_is_told_with_the_declaration(
    monkeypatch: pytest.MonkeyPatch, url: str, missing: str, line: str
) -> None:
    monkeypatch.setattr(address, "find_spec", lambda name: None if name == missing else object())

    with pytest.raises(MissingDependency) as caught:
        Database(ResourcePool(), url, store_url=str)
    assert str(caught.value) == f"app.database() needs {line}"


def test_a_url_without_a_driver_means_one_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "find_spec", lambda name: object() if name == "aiomysql" else None)
    assert async_url("mysql://db/shop") == "mysql+aiomysql://db/shop"

    monkeypatch.setattr(address, "find_spec", lambda name: None)
    assert async_url("mysql://db/shop") == "mysql+asyncmy://db/shop"


def test_an_asyncmy_that_mixes_up_rows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.2.12")

    with pytest.raises(MissingDependency) as caught:
        check_installed("mysql+asyncmy://db/shop")
    assert str(caught.value) == (
        "app.database() needs asyncmy 0.2.13 or newer, not 0.2.12: older ones give a task the rows of "
        'another whose query was cancelled: pip install --upgrade "everloop[mysql]"'
    )


async def test_a_driver_that_cannot_be_imported_is_told_at_the_first_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = ResourcePool()
    db = Database(pool, "postgresql+asyncpg://ada:secret@db/shop", store_url=str)
    monkeypatch.setitem(sys.modules, "asyncpg", None)

    with pytest.raises(MissingDependency) as caught:
        _ = db._pool()
    assert str(caught.value) == 'app.database() needs asyncpg: pip install "everloop[postgres]"'
    assert str(without_driver("postgresql+psycopg://db/shop", ImportError("no pq wrapper available"))) == (
        "the database URL 'postgresql+psycopg://db/shop' needs psycopg (no pq wrapper available): "
        'pip install "everloop[postgres]"'
    )
    assert str(without_driver("snowflake+aio://db/shop", ImportError("none", name="snow"))) == (
        "the database URL 'snowflake+aio://db/shop' needs snow (none): pip install snow"
    )
    await pool.aclose()


async def test_a_url_that_cannot_be_read_is_refused_without_its_password() -> None:
    pool = ResourcePool()
    db = Database(pool, "mysql+aiomysql://ada:sec@r:et@db/shop", store_url=str)

    with pytest.raises(ConfigError) as caught:
        _ = db.engine
    assert str(caught.value) == (
        "app.database('mysql+aiomysql://ada:***@db/shop') cannot be read as "
        "driver://user:password@host:port/database. A password with one of @ : / ? # % is written as "
        "urllib.parse.quote(password, safe='') gives it"
    )
    assert caught.value.__suppress_context__
    await pool.aclose()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mysql://ada:secret@db/shop", "mysql://ada:***@db/shop"),
        ("mysql://ada:se@cr/et#?@db/shop", "mysql://ada:***@db/shop"),
        ("mysql://:secret@db/shop", "mysql://:***@db/shop"),
        ("mysql://db:3306/shop", "mysql://db:3306/shop"),
        ("mysql://ada@db/shop", "mysql://ada@db/shop"),
        (
            "postgresql://db/shop?user=ada&password=secret&ssl=on",
            "postgresql://db/shop?user=ada&password=***&ssl=on",
        ),
        ("sqlite:///a:b.db", "sqlite:///a:b.db"),
    ],
)
def test_a_password_is_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


async def test_an_aiosqlite_that_is_too_old_is_told(monkeypatch: pytest.MonkeyPatch, workdir: Path) -> None:
    monkeypatch.delattr(aiosqlite.Connection, "stop")
    monkeypatch.setattr(aiosqlite, "__version__", "0.21.0")
    pool = ResourcePool()

    with pytest.raises(MissingDependency) as caught:
        _ = Database(pool, "sqlite:///shop.db", store_url=str).engine
    assert str(caught.value) == (
        'app.database() needs aiosqlite 0.22.1 or newer, not 0.21.0: pip install "aiosqlite>=0.22.1"'
    )
    await pool.aclose()


async def test_a_dialect_that_nobody_knows_is_a_wrong_configuration() -> None:
    pool = ResourcePool()
    db = Database(pool, "snowflake+aio://db/shop", store_url=str)

    with pytest.raises(ConfigError, match=r"app.database\('snowflake\+aio://db/shop'\): Can't load plugin"):
        _ = db.engine
    await pool.aclose()


async def test_the_stores_own_url_is_looked_at_with_the_first_use() -> None:
    db = Database(ResourcePool(), None, store_url=lambda: "memory://shop")

    assert repr(db) == "<everloop.Database of the store>"
    with pytest.raises(ConfigError, match=r"app\.database\(\) needs an SQL database, and memory:// is none"):
        _ = db.url
