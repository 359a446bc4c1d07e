"""Opening a store on a server: what is wrong is said, with what to do, and never with the password."""

from __future__ import annotations

import sys
from urllib.parse import urlsplit

import pytest

from everloop import ConfigError, MissingDependency, SchemaError, StoreUnavailable
from everloop.store.sql import dialect, mysql, postgresql, server_store
from everloop.store.sql.dialect import Migration, migrations
from everloop.store.sql.server_store import ServerStore
from everloop.store.url import store_from_url
from tests.helpers.servers.mariadb import MariaServer
from tests.helpers.servers.place import free_port
from tests.helpers.servers.postgresql import PostgresServer
from tests.helpers.servers.server import Server

pytestmark = pytest.mark.server


@pytest.fixture(params=["mariadb", "postgresql"])
def server(request: pytest.FixtureRequest) -> Server:
    server = request.getfixturevalue(request.param)
    assert isinstance(server, Server)
    return server


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    kind = "postgresql" if isinstance(server, PostgresServer) else "mariadb"
    return str(request.getfixturevalue(f"{kind}_url"))


async def refused(url: str, kind: type[Exception], *words: str) -> None:
    store = store_from_url(url)
    with pytest.raises(kind) as caught:
        await store.open()
    for word in words:
        assert word in str(caught.value)
    password = urlsplit(url).password
    assert password is None or password not in str(caught.value)


async def test_a_wrong_password(url: str) -> None:
    parts = urlsplit(url)
    wrong = url.replace(str(parts.password), "not-the-password")
    await refused(wrong, ConfigError, "Check the user and the password in the URL", str(parts.hostname))


async def test_a_database_that_is_not_there(url: str, server: Server) -> None:
    name = urlsplit(url).path.removeprefix("/")
    told = f"CREATE DATABASE {name}x" if isinstance(server, PostgresServer) else f"GRANT ALL ON {name}x.*"
    await refused(url + "x", ConfigError, told)


async def test_a_server_that_is_not_there(url: str) -> None:
    port = free_port()
    away = url.replace(f":{urlsplit(url).port}/", f":{port}/")
    told = f"Is the server running, and are host and port right? They are 127.0.0.1:{port}"
    await refused(away, StoreUnavailable, told)


async def test_a_host_of_no_such_name(url: str) -> None:
    await refused(
        url.replace("@127.0.0.1:", "@no-such-host.invalid:"),
        ConfigError,
        "No host has the name 'no-such-host.invalid'",
    )


async def test_missing_rights(url: str, server: Server) -> None:
    user = urlsplit(url).username
    if isinstance(server, PostgresServer):
        server.execute(
            f"ALTER SCHEMA public OWNER TO {server.execute('SELECT current_user')[0][0]}", database=url
        )
        server.execute(f"REVOKE CREATE ON SCHEMA public FROM {user}, public", database=url)
        await refused(url, ConfigError, f"GRANT CREATE ON SCHEMA public TO {user}", "everloop migrate")
    else:
        assert isinstance(server, MariaServer)
        server.execute(f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM '{user}'@'%'")
        server.execute(f"GRANT SELECT ON {user}.* TO '{user}'@'%'")
        await refused(url, ConfigError, f"GRANT ALL ON {user}.* TO '{user}'@'%'", "everloop migrate")


async def test_a_schema_of_another_release(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_from_url(url)
    assert isinstance(store, ServerStore)
    await store.open()
    await store.close()
    now = migrations(store.dialect)
    later = (*now, Migration(3, "more", "CREATE TABLE ever_more (n bigint);"))
    for module in (dialect, mysql, postgresql, server_store):
        monkeypatch.setattr(module, "migrations", lambda _: later)

    await refused(url, SchemaError, "has schema 2", "needs 3", "everloop migrate")
    newer = store_from_url(url)
    assert isinstance(newer, ServerStore)
    assert await newer.migrations() == (2, [later[-1]])
    await newer.migrate()
    await newer.open()
    await newer.close()

    for module in (dialect, mysql, postgresql, server_store):
        monkeypatch.setattr(module, "migrations", lambda _: now)
    await refused(url, SchemaError, "has schema 3", "knows 2", "pip install -U everloop")


@pytest.mark.parametrize(
    ("url", "module", "package"),
    [
        ("postgresql://localhost/shop", "psycopg", "everloop[postgres]"),
        ("mysql://localhost/shop", "pymysql", "everloop[mysql]"),
    ],
)
def test_a_driver_that_is_not_installed(
    url: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = ("everloop.store.sql.postgresql", "everloop.store.sql.mysql", "everloop.store.sql.runners")
    for name in list(sys.modules):
        if name.partition(".")[0] == module or name.startswith(ours):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency) as caught:
        store_from_url(url)
    assert f'pip install "{package}"' in str(caught.value)
