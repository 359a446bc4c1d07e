"""Opening a store on a server: what is wrong is said, with what to do, and never with the password."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from everloop import ConfigError, MissingDependency, SchemaError, StoreUnavailable
from everloop._core.text import without_password
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


async def test_tables_of_another_role(postgresql_url: str, postgresql: PostgresServer) -> None:
    user = urlsplit(postgresql_url).username
    store = store_from_url(postgresql_url)
    await store.open()
    await store.close()
    owner = f"{user}_owner"
    postgresql.execute(f"CREATE ROLE {owner}")
    for table in ("meta", "calls", "sessions"):
        postgresql.execute(f"ALTER TABLE ever_{table} OWNER TO {owner}", database=postgresql_url)
    for right, table in (("SELECT", "meta"), ("SELECT, INSERT, UPDATE", "calls"), ("ALL", "sessions")):
        postgresql.execute(f"GRANT {right} ON ever_{table} TO {user}", database=postgresql_url)
    grant = (
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}; "
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {user}"
    )
    await refused(
        postgresql_url,
        ConfigError,
        f"the role {user!r} may not use the tables of Everloop in postgresql://{user}:***@",
        f"which belong to the role {owner!r} (rights are missing on ever_calls, ever_meta). As {owner!r} or "
        f"an administrator, in that database: {grant}",
    )
    postgresql.execute(grant, database=postgresql_url)
    store = store_from_url(postgresql_url)
    await store.open()
    await store.close()
    postgresql.execute(f"REASSIGN OWNED BY {owner} TO {user}; DROP ROLE {owner}", database=postgresql_url)


async def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    told = "Is the server running on this machine, and is its socket right? It is the socket"
    socket = f"{tmp_path}/.s.PGSQL.5432"
    await refused(f"postgresql://u@/d?host={tmp_path}", StoreUnavailable, f"{told} {socket}")


async def test_none_of_several_hosts_is_there() -> None:
    one, other = free_port(), free_port()
    await refused(
        f"postgresql://u@127.0.0.1:{one},127.0.0.1:{other}/d",
        StoreUnavailable,
        f"are host and port right? They are 127.0.0.1:{one}, 127.0.0.1:{other}",
    )


async def setting(store: ServerStore[Any], name: str) -> str:
    def ask(connection: Any) -> str:
        return str(connection.execute(f"SHOW {name}").fetchall()[0][0])

    return await store._runner().call(ask)


async def test_options_of_the_url_go_with_the_stores_own(postgresql_url: str) -> None:
    store = store_from_url(f"{postgresql_url}?options=-c%20work_mem%3D5MB%20-c%20lock_timeout%3D77s")
    assert isinstance(store, ServerStore)
    await store.open()
    names = ("work_mem", "lock_timeout", "default_transaction_isolation")
    assert [await setting(store, name) for name in names] == ["5MB", "5s", "read committed"]
    await store.close()


@pytest.mark.parametrize("whose", ["ROLE", "DATABASE"])
async def test_commits_are_durable_whatever_a_role_or_database_says(
    postgresql_url: str, postgresql: PostgresServer, whose: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "everloop")
    name = urlsplit(postgresql_url).username
    postgresql.execute(f"ALTER {whose} {name} SET synchronous_commit = off")
    for query, found in (("", "on"), ("?options=-c%20synchronous_commit%3Doff", "off")):
        store = store_from_url(postgresql_url + query)
        assert isinstance(store, ServerStore)
        await store.open()
        assert await setting(store, "synchronous_commit") == found
        await store.close()
    (text,) = {record.message for record in caplog.records if "synchronous_commit" in record.message}
    assert text == (
        "everloop: synchronous_commit is off for this role or database on "
        f"{without_password(postgresql_url)}; the store's own transactions commit with it on "
        "(?options=-c%20synchronous_commit=off in its URL leaves it off)"
    )


async def test_what_psycopg_says_of_the_stores_connections_is_not_passed_on(
    postgresql_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_from_url(postgresql_url)
    assert isinstance(store, ServerStore)
    await store.open()
    # As it does when a connection dies within a pipeline: in the thread that used it.
    await store._runner().call(lambda _: logging.getLogger("psycopg").warning("of ours"))
    logging.getLogger("psycopg").warning("of a user's")
    await store.close()
    assert [record.message for record in caplog.records] == ["of a user's"]


async def test_a_schema_of_another_release(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_from_url(url)
    assert isinstance(store, ServerStore)
    await store.open()
    await store.close()
    now = migrations(store.dialect)
    newest = now[-1].number
    later = (*now, Migration(newest + 1, "more", "CREATE TABLE ever_more (n bigint);"))
    for module in (dialect, mysql, postgresql, server_store):
        monkeypatch.setattr(module, "migrations", lambda _: later)

    await refused(url, SchemaError, f"has schema {newest}", f"needs {newest + 1}", "everloop migrate")
    newer = store_from_url(url)
    assert isinstance(newer, ServerStore)
    assert await newer.migrations() == (newest, [later[-1]])
    await newer.migrate()
    await newer.open()
    await newer.close()

    for module in (dialect, mysql, postgresql, server_store):
        monkeypatch.setattr(module, "migrations", lambda _: now)
    await refused(url, SchemaError, f"has schema {newest + 1}", f"knows {newest}", "pip install -U everloop")


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
