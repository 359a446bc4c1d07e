"""Connecting to a server: what is refused, how long it takes, and that TLS is never left out."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from everloop._core.errors import ConfigError
from everloop.resources.connecting import MYSQL_DRIVERS
from everloop.resources.database import Database
from everloop.resources.refusal import CannotConnect
from tests.helpers.pools import DRIVERS, is_mysql, opened
from tests.helpers.servers.fixtures import required
from tests.helpers.servers.mariadb import MariaServer
from tests.helpers.servers.place import fresh

mysql_only = pytest.mark.parametrize("driver", MYSQL_DRIVERS, indirect=True)


async def refused(url: str, **options: Any) -> CannotConnect:
    """Use a pool on this URL, which fails."""
    pool = opened(url, **options)
    try:
        with pytest.raises(CannotConnect) as caught:
            async with pool.db.connection() as conn:
                await conn.execute(text("select 1"))
        assert pool.db.statistics().in_use == 0
    finally:
        await pool.close()
    return caught.value


def with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.username}:{password}@{parts.hostname}:{parts.port}").geturl()


def told(url: str) -> str:
    return f"cannot connect to {with_password(url, '***')}: "


# -- refusals --------------------------------------------------------------------------------------------


async def test_a_wrong_password_says_what_to_do_and_does_not_show_it(url: str) -> None:
    error = await refused(with_password(url, "wrong-one"))

    assert str(error).startswith(told(url))
    assert "wrong-one" not in str(error)
    assert "Access denied for user" in str(error) or "password authentication failed" in str(error)
    assert str(error).endswith(
        ". Check the user and the password in the URL; in a URL a password with one of @ : / ? # % is "
        "written as urllib.parse.quote(password, safe='') gives it"
    )


async def test_it_is_an_error_of_sqlalchemy_and_of_python(url: str) -> None:
    error = await refused(with_password(url, "wrong-one"))

    assert isinstance(error, OperationalError)
    assert isinstance(error, ConnectionError)
    assert error.__cause__ is error.orig is not None


async def test_a_missing_database_says_how_to_create_it(url: str) -> None:
    error = await refused(urlsplit(url)._replace(path="/nowhere").geturl())

    if is_mysql(url):  # which does not tell a stranger whether there is one
        user = urlsplit(url).username
        assert str(error).endswith(
            "The user may not use it, or there is no such database; as an administrator: CREATE DATABASE IF "
            f"NOT EXISTS nowhere CHARACTER SET utf8mb4; GRANT ALL ON nowhere.* TO '{user}'@'%'"
        )
    else:
        assert str(error).endswith('database "nowhere" does not exist. Create it: CREATE DATABASE nowhere')


@pytest.mark.parametrize("driver", list(DRIVERS))
async def test_a_server_that_does_not_run(driver: str, unused_tcp_port: int) -> None:
    error = await refused(f"{DRIVERS[driver][1]}://ada:secret@127.0.0.1:{unused_tcp_port}/shop")

    assert str(error).endswith(
        f". Is the server running, and are host and port right? They are 127.0.0.1:{unused_tcp_port}"
    )


@pytest.mark.parametrize("driver", list(DRIVERS))
async def test_a_host_that_nobody_knows(driver: str) -> None:
    error = await refused(f"{DRIVERS[driver][1]}://ada:secret@nowhere.invalid/shop")

    assert str(error).endswith(". No host has the name 'nowhere.invalid': check it in the URL")


@pytest.mark.parametrize("driver", list(DRIVERS))
async def test_a_parameter_that_the_driver_does_not_know(driver: str) -> None:
    error = await refused(f"{DRIVERS[driver][1]}://ada:secret@127.0.0.1:1/shop?colour=red")

    assert "colour" in str(error)
    assert str(error).endswith(
        ". A parameter of the URL, or of connect_args, is not one that the driver knows"
    )


@pytest.mark.parametrize("driver", list(DRIVERS))
async def test_a_server_that_never_says_anything_is_given_up(driver: str) -> None:
    limit = 2 if driver == "psycopg" else 1  # psycopg takes no less
    async with mute_server() as port:
        async with asyncio.timeout(10):
            error = await refused(
                f"{DRIVERS[driver][1]}://ada:secret@127.0.0.1:{port}/shop?connect_timeout={limit}"
            )

    assert str(error).endswith(
        f". Is the server running, and does a firewall let this machine through to 127.0.0.1:{port}?"
    )


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy", "asyncpg"])
async def test_a_time_limit_that_is_no_number_is_refused(driver: str) -> None:
    pool = opened(f"{DRIVERS[driver][1]}://ada:secret@127.0.0.1:1/shop?connect_timeout=soon")

    with pytest.raises(ConfigError, match="soon"):
        async with pool.db.connection() as conn:
            await conn.execute(text("select 1"))
    await pool.close()


@pytest.mark.parametrize("driver", list(DRIVERS))
async def test_who_is_cancelled_while_a_connection_is_opened_does_not_wait_for_the_server(
    driver: str,
) -> None:
    async with mute_server() as port:
        pool = opened(f"{DRIVERS[driver][1]}://ada:secret@127.0.0.1:{port}/shop", pool_size=1)

        async def use() -> None:
            async with pool.db.connection() as conn:
                await conn.execute(text("select 1"))

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await use()

        assert pool.db.statistics().in_use == 0
        await pool.close()


@asynccontextmanager
async def mute_server() -> AsyncIterator[int]:
    """A server that takes connections, and says nothing."""
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


# -- TLS -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["ssl=true", "ssl=REQUIRED", "ssl_ca={ca}"])
@mysql_only
async def test_mysql_without_tls_is_refused_where_tls_was_asked_for(
    url: str, query: str, certificate: Path
) -> None:
    error = await refused(f"{url}?{query.format(ca=certificate)}")

    assert ". TLS was asked for, and the connection is not made without: " in str(error)


@mysql_only
async def test_mysql_without_tls_is_refused_a_context_too(url: str) -> None:
    error = await refused(url, connect_args={"ssl": ssl.create_default_context()})

    assert ". TLS was asked for, and the connection is not made without: " in str(error)


@pytest.mark.parametrize("driver", ["aiomysql"], indirect=True)
async def test_a_creator_of_the_users_own_may_not_leave_tls_out_either(url: str) -> None:
    aiomysql = __import__("aiomysql")
    error = await refused(f"{url}?ssl=true", connect_args={"async_creator_fn": aiomysql.connect})

    # MySQL does not even listen to who speaks of TLS and goes on without.
    ours = ": the server does not offer TLS. TLS was asked for, and the connection is not made"
    assert ours in str(error) or str(error).endswith(": Bad handshake (1043)")


@pytest.mark.parametrize(
    ("driver", "query"),
    [("asyncpg", "ssl=require"), ("asyncpg", "sslmode=require"), ("psycopg", "sslmode=require")],
    indirect=["driver"],
)
async def test_postgresql_without_tls_is_refused_where_tls_was_asked_for(url: str, query: str) -> None:
    error = await refused(f"{url}?{query}")

    assert ". TLS was asked for, and the connection is not made without: " in str(error)


@pytest.mark.parametrize(
    ("driver", "query"),
    [
        (driver, query)
        for driver in ("asyncpg", "psycopg")
        for query in (
            "application_name=till&options=-c%20work_mem%3D5MB",
            "sslmode=prefer&sslrootcert=/nowhere/ca.pem",
            "keepalives_idle=30&keepalives=1",
            "target_session_attrs=any",
        )
    ],
    indirect=["driver"],
)
async def test_the_words_of_libpq_hold_with_either_driver(url: str, query: str) -> None:
    pool = opened(f"{url}?{query}")

    async with pool.db.connection() as conn:
        asked = text("select current_setting('application_name'), current_setting('work_mem')")
        found = tuple((await conn.execute(asked)).one())
    await pool.close()
    assert "options" not in query or found == ("till", "5MB")


@mysql_only
async def test_a_word_that_means_nothing_for_tls_is_refused(url: str) -> None:
    pool = opened(f"{url}?ssl=perhaps")

    with pytest.raises(ConfigError, match="`ssl` asks for TLS with 'perhaps', which means nothing here"):
        async with pool.db.connection() as conn:
            await conn.execute(text("select 1"))
    await pool.close()


@mysql_only
async def test_nothing_of_the_login_is_sent_to_a_server_without_tls(url: str) -> None:
    """A server that looks like MariaDB, and notes what it is told."""
    heard = bytearray()
    parts = urlsplit(url)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        above = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(await above[0].read(1000))
        heard.extend(await reader.read(1000))
        for each in (above[1], writer):
            each.transport.abort()

    async with await asyncio.start_server(pass_on, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await refused(f"{url.replace(f':{parts.port}/', f':{port}/')}?ssl=true")

    assert str(parts.username).encode() not in heard


@pytest.fixture(scope="module")
def server() -> MariaServer:
    """A MariaDB that is not started yet."""
    return required(MariaServer)


@pytest.fixture(scope="module")
def certificate(server: MariaServer) -> Iterator[Path]:
    """A certificate for localhost, signed by itself; its key lies beside it."""
    folder = fresh("tls", server.user)
    path = folder / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(folder / "server.key"), "-out", str(path)],
        check=True, capture_output=True,
    )  # fmt: skip
    for each in folder.iterdir():
        server.user.own(each)
    yield path
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def tls_server(server: MariaServer, certificate: Path) -> Iterator[str]:
    """The URL of a database on a server with that certificate."""
    server.settings |= {"ssl-cert": str(certificate), "ssl-key": str(certificate.with_name("server.key"))}
    with server:
        yield server.database()


@pytest.mark.parametrize("driver", MYSQL_DRIVERS)
async def test_with_the_certificates_authority_the_connection_is_encrypted(
    tls_server: str, certificate: Path, driver: str
) -> None:
    pool = opened(f"{tls_server.replace('mysql://', f'mysql+{driver}://')}?ssl_ca={certificate}")
    async with pool.db.connection() as conn:
        row = (await conn.execute(text("show status like 'Ssl_cipher'"))).one()
        assert row[1]
        # The side connection that ends cancelled queries is encrypted, too.
        abandoned = pool.db._pool()._connector.abandoned  # type: ignore[union-attr]
        assert abandoned is not None
        raw = await abandoned._connect()
        async with raw.cursor() as cursor:
            await cursor.execute("show status like 'Ssl_cipher'")
            assert (await cursor.fetchone())[1]
        raw.close()
    await pool.close()


@pytest.mark.parametrize("driver", MYSQL_DRIVERS)
async def test_a_certificate_of_an_unknown_authority_is_refused(tls_server: str, driver: str) -> None:
    error = await refused(f"{tls_server.replace('mysql://', f'mysql+{driver}://')}?ssl=true")

    assert "certificate" in str(error)


@pytest.mark.parametrize("driver", MYSQL_DRIVERS)
async def test_a_certificate_that_nobody_has_to_know_encrypts_all_the_same(
    tls_server: str, driver: str
) -> None:
    pool = opened(f"{tls_server.replace('mysql://', f'mysql+{driver}://')}?ssl_verify=false")
    async with pool.db.connection() as conn:
        assert (await conn.execute(text("show status like 'Ssl_cipher'"))).one()[1]
    await pool.close()

    bad = opened(f"{tls_server.replace('mysql://', f'mysql+{driver}://')}?ssl_verify=perhaps")
    with pytest.raises(ConfigError, match="`ssl_verify` is true or false, not 'perhaps'"):
        async with bad.db.connection() as conn:
            await conn.execute(text("select 1"))
    await bad.close()


# -- what a connection is like ---------------------------------------------------------------------------


@mysql_only
async def test_every_character_survives(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute(text("create table words (word varchar(10)) character set utf8mb4"))
        await conn.execute(text("insert into words values (:word)"), {"word": "🐙 für 日本"})
    async with db.connection() as conn:
        assert (await conn.execute(text("select word from words"))).scalar_one() == "🐙 für 日本"
        assert (await conn.execute(text("select @@character_set_client"))).scalar_one() == "utf8mb4"


async def test_the_isolation_is_that_of_the_server(db: Database, url: str) -> None:
    async with db.connection() as conn:
        level = await conn.get_isolation_level()

    assert level == ("REPEATABLE READ" if is_mysql(url) else "READ COMMITTED")


async def test_a_creator_of_the_users_own_is_used(url: str, pools: Callable[..., Database]) -> None:
    made: list[Any] = []

    async def connect(**arguments: Any) -> Any:
        module = __import__(pool.engine.dialect.driver.removesuffix("_async"))
        arguments.pop("sslmode", None)
        function = module.AsyncConnection.connect if module.__name__ == "psycopg" else module.connect
        made.append(await function(**arguments))
        return made[-1]

    pool = pools(connect_args={"async_creator_fn": connect})
    async with pool.connection() as conn:
        assert (await conn.execute(text("select 1"))).scalar_one() == 1
        assert (await conn.get_raw_connection()).driver_connection is made[0]
