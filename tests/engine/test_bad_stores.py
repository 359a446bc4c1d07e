"""Store and database URLs that lead nowhere: said before any work, with what to write instead."""

from __future__ import annotations

import asyncio
import importlib.util
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from everloop import App, ConfigError, MissingDependency, SchemaError, StoreURLError
from everloop.store.sql.runners import sqlite_file
from tests.engine.conftest import make
from tests.helpers.processes import run_program

NEAR = "; did you mean 'sqlite'?"
NO_STORE = "; this version stores in sqlite://, postgresql://, mysql://, memory://, for example sqlite:///"


async def refused(url: str, kind: type[Exception] = ConfigError) -> str:
    """Use an app on this store in each way, and return the one message that all of them give."""
    app = make(url)

    @app.task
    async def work() -> None: ...

    messages: set[str] = set()
    with pytest.raises(kind) as caught:
        await work()
    messages.add(str(caught.value))
    with pytest.raises(kind) as caught:
        await app.submit(work())
    messages.add(str(caught.value))
    with pytest.raises(kind) as caught:
        async with app.worker():
            pass
    messages.add(str(caught.value))
    (message,) = messages
    return message


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "sqlit:///x.db",
            f"unknown store 'sqlit' in the URL 'sqlit:///x.db'; did you mean 'sqlite'?{NO_STORE}",
        ),
        (
            "SQLITE:///x.db",
            f"unknown store 'SQLITE' in the URL 'SQLITE:///x.db'{NEAR}{NO_STORE}",
        ),
        ("oracle://root:pw@h/x", f"unknown store 'oracle' in the URL 'oracle://root:***@h/x'{NO_STORE}"),
        ("mysql://root:pw@h", "the store URL 'mysql://root:***@h' names no database; write mysql://"),
        ("postgresql://root:pw@h/x?sslmod=on", "the store URL 'postgresql://root:***@h/x?sslmod=on' cannot"),
        ("x.db", "the store URL 'x.db' has no `scheme://`; for a file write sqlite:///x.db"),
        ("sqlite:x.db", "the store URL 'sqlite:x.db' has no `scheme://`; for a file write sqlite:///x.db"),
        (
            "sqlite://x.db",
            (
                "the store URL 'sqlite://x.db' names the host 'x.db', but an SQLite file has none; "
                "write three "
                "slashes for a relative path (sqlite:///x.db) or four for an absolute one"
            ),
        ),
        (
            "sqlite:///x.db?mode=ro",
            "the store URL 'sqlite:///x.db?mode=ro' has a query; SQLite takes none: write sqlite:///x.db",
        ),
        (
            "sqlite:///:memory:",
            (
                "the store URL 'sqlite:///:memory:' names no file; write sqlite:///app.db, or "
                "memory:// for a "
                "store that dies with the process"
            ),
        ),
    ],
)
async def test_a_url_that_names_no_store_is_refused(url: str, message: str, workdir: Path) -> None:
    assert (await refused(url, StoreURLError)).startswith(message)
    assert list(workdir.iterdir()) == []


async def test_a_missing_folder_is_named_and_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "missing"

    assert await refused(f"sqlite:///{folder}/x.db") == (
        f"the folder {str(folder)!r} of the store '{folder}/x.db' does not exist; create it (mkdir -p "
        f"{folder}) or correct the URL"
    )
    assert not folder.exists()


async def test_a_folder_is_no_store(tmp_path: Path) -> None:
    assert await refused(f"sqlite:///{tmp_path}") == (
        f"the store {str(tmp_path)!r} is a folder; give the path of a file in it"
    )


@pytest.mark.parametrize("content", [b"no database at all, just a text file\n" * 40, b"\x00" * 5000])
async def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)

    assert await refused(f"sqlite:///{path}") == (
        f"the store {str(path)!r} is not an SQLite database; give another path, or move that file away"
    )
    assert path.read_bytes() == content


async def test_a_store_of_a_newer_version_is_refused_and_kept(sqlite: str, tmp_path: Path) -> None:
    async with make(sqlite):
        pass
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("UPDATE ever_meta SET value = 999 WHERE name = 'schema'")
    connection.close()

    message = await refused(sqlite, SchemaError)

    assert message.startswith(
        f"the store '{tmp_path}/store.db' has schema 999, but this version of Everloop knows "
    )
    assert message.endswith("; upgrade it (pip install -U everloop). Nothing has been changed")


async def test_a_network_file_system_is_refused(
    sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "file_system", lambda _folder: "nfs4")

    assert await refused(sqlite) == (
        f"the store '{tmp_path}/store.db' lies on a network file system (nfs4), where SQLite's locks and its "
        "write-ahead log do not work; use a local disk"
    )
    assert not (tmp_path / "store.db").exists()


def test_the_file_system_of_a_folder_is_known(tmp_path: Path) -> None:
    assert sqlite_file.file_system(Path("/proc")) == "proc"
    assert sqlite_file.file_system(tmp_path) not in ("", "proc")


UNPRIVILEGED = """
import asyncio, os, sys
from everloop import App, ConfigError

async def main() -> None:
    async with App("test", sys.argv[2]):
        pass  # everything is imported while this user may still read it
    if os.geteuid() == 0:
        os.seteuid(65534)  # root may write everywhere
    try:
        async with App("test", sys.argv[1]):
            pass
    except ConfigError as error:
        print(error)
    else:
        print("opened")

asyncio.run(main())
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter; pytest's own are closed to them."""
    with TemporaryDirectory(prefix="everloop-") as name:
        folder = Path(name) / "data"
        folder.mkdir()
        folder.parent.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "message"),
    [
        (0o444, 0o777, "the store '{path}' is read-only for this user; Everloop has to write it"),
        (
            0o666,
            0o555,
            "the folder '{folder}' is read-only for this user; SQLite keeps files beside the store in it",
        ),
        (
            0o666,
            0o600,
            (
                "the folder '{folder}' of the store '{path}' is closed to this user; let it in (chmod), or "
                "correct the URL"
            ),
        ),
    ],
)
def test_what_this_user_may_not_write_is_refused(
    open_folder: Path, tmp_path: Path, file_mode: int, folder_mode: int, message: str
) -> None:
    path = open_folder / "store.db"

    async def create() -> None:
        async with App("test", f"sqlite:///{path}"):
            pass

    asyncio.run(create())
    path.chmod(file_mode)
    open_folder.chmod(folder_mode)
    first = f"sqlite:///{tmp_path}/first.db"
    ran = run_program("-c", UNPRIVILEGED, f"sqlite:///{path}", first, folder=tmp_path).checked()

    assert ran.lines == [message.format(path=path, folder=open_folder)]


async def test_a_store_that_could_not_be_opened_is_opened_when_it_can(tmp_path: Path) -> None:
    app = App("test", f"sqlite:///{tmp_path}/later/store.db")

    @app.task
    async def work() -> str:
        return "done"

    with pytest.raises(ConfigError):
        async with app.worker():
            pass
    (tmp_path / "later").mkdir()
    async with app.worker():
        assert await work() == "done"


# -- databases ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "mysql+pymysql://root:pw@h/x",
            (
                "the database URL 'mysql+pymysql://root:***@h/x' names no driver for asyncio (pymysql would "
                "block the loop); write mysql+asyncmy://..."
            ),
        ),
        (
            "postgres+psycopg2://h/x",
            (
                "the database URL 'postgres+psycopg2://h/x' names no driver for asyncio (psycopg2 "
                "would block the "
                "loop); write postgresql+asyncpg://..."
            ),
        ),
        (
            "sqlit+aiosqlite:///x.db",
            "unknown database 'sqlit' in the URL 'sqlit+aiosqlite:///x.db'; did you mean 'sqlite'?",
        ),
        (
            "shop.db",
            "the database URL 'shop.db' has no `scheme://`; write for example sqlite+aiosqlite:///shop.db",
        ),
        (
            "sqlite+pysqlcipher:///x.db",
            "the SQLite driver 'pysqlcipher' cannot be used here; write sqlite+aiosqlite:///x.db",
        ),
        (
            "redis://h",
            (
                "app.database() needs an SQL database, and redis:// is none; without a URL it means "
                "the store's "
                "own. Give a URL, for example app.database('sqlite+aiosqlite:///shop.db')"
            ),
        ),
    ],
)
def test_a_url_that_names_no_usable_database_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        App("test", "memory://").database(url)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("sqlalchemy", 'app.database() needs SQLAlchemy: pip install "everloop[sql]"'),
        ("aiosqlite", 'app.database() needs aiosqlite: pip install "everloop[sql]"'),
        ("aiomysql", 'app.database() needs aiomysql: pip install "everloop[aiomysql]"'),
    ],
)
def test_a_missing_package_is_named_with_its_installation(
    module: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec

    def hidden(name: str, *args: Any) -> Any:
        return None if name == module else found(name, *args)

    monkeypatch.setattr("everloop.resources.address.find_spec", hidden)
    with pytest.raises(MissingDependency) as caught:
        App("test", "memory://").database(
            "mysql+aiomysql://root@localhost/shop" if module == "aiomysql" else "sqlite:///shop.db"
        )

    assert str(caught.value) == message


async def test_a_store_in_memory_has_no_database() -> None:
    database = App("test", "memory://").database()

    with pytest.raises(ConfigError) as caught:
        async with database.transaction() as connection:
            await connection.rollback()

    assert str(caught.value).startswith(
        "app.database() needs an SQL database, and memory:// is none; without"
    )
