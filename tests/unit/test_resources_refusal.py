"""Refusals of database servers, in words: what each code means, and what to do."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from everloop._core.errors import ConfigError
from everloop.resources.refusal import CannotConnect, cannot_connect
from everloop.resources.tls import tls_context

MYSQL = make_url("mysql+asyncmy://ada:secret@db/shop")
POSTGRESQL = make_url("postgresql+psycopg://ada:secret@db:6543/shop")


class DriverError(Exception):
    """As a driver raises it."""

    def __init__(self, *args: object, sqlstate: str | None = None) -> None:
        super().__init__(*args)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            DriverError(1040, "Too many connections"),
            (
                "Too many connections (1040). The server has no place left: give app.database(...) a smaller "
                "pool_size, run fewer processes, or raise the server's max_connections"
            ),
        ),
        (
            DriverError(1049, "Unknown database 'shop'"),
            "Unknown database 'shop' (1049). Create it: CREATE DATABASE shop CHARACTER SET utf8mb4",
        ),
        (
            DriverError(1129, "Host 'web' is blocked"),
            "Host 'web' is blocked (1129). An administrator unblocks it there: FLUSH HOSTS",
        ),
        (
            DriverError(1130, "Host 'web' is not allowed to connect"),
            (
                "Host 'web' is not allowed to connect (1130). The server lets the user in from other hosts "
                "only; as an administrator: CREATE USER 'ada'@'%' IDENTIFIED BY '...'"
            ),
        ),
        (DriverError("nothing more is known."), "nothing more is known"),
        (DriverError(), "DriverError"),
        (DriverError("it was secret"), "it was ***"),
        (
            TimeoutError(),
            ("TimeoutError. Is the server running, and does a firewall let this machine through to db:3306?"),
        ),
    ],
)
def test_what_mysql_means(error: Exception, message: str) -> None:
    told = cannot_connect(MYSQL, error)

    assert str(told) == f"cannot connect to mysql+asyncmy://ada:***@db/shop: {message}"
    assert told.orig is error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            DriverError("no pg_hba.conf entry", sqlstate="28000"),
            "no pg_hba.conf entry. Check the user and the password in the URL; ",
        ),
        (
            DriverError("FATAL:  permission denied for database shop"),
            (
                "FATAL: permission denied for database shop. As an administrator: GRANT CONNECT ON DATABASE "
                "shop TO ada"
            ),
        ),
        (
            DriverError("FATAL: sorry, too many clients already"),
            "FATAL: sorry, too many clients already. The server has no place left: ",
        ),
        (
            DriverError("FATAL: Passwort-Authentifizierung für Benutzer »ada« fehlgeschlagen"),
            (
                "FATAL: Passwort-Authentifizierung für Benutzer »ada« fehlgeschlagen. Check the user, the "
                "password and the database in the URL"
            ),
        ),
        (
            DriverError("server closed the connection unexpectedly"),
            "server closed the connection unexpectedly",
        ),
        (
            DriverError("the database system is starting up", sqlstate="57P03"),
            "the database system is starting up. Wait a moment and try again",
        ),
        (
            socket.gaierror(-2, "Name or service not known"),
            "Name or service not known (-2). No host has the name 'db': check it in the URL",
        ),
        (
            DriverError("server does not support SSL, but SSL was required"),
            "server does not support SSL, but SSL was required. TLS was asked for, and the ",
        ),
    ],
)
def test_what_postgresql_means(error: Exception, message: str) -> None:
    told = str(cannot_connect(POSTGRESQL, error))

    assert told.startswith(f"cannot connect to postgresql+psycopg://ada:***@db:6543/shop: {message}")


def test_the_innermost_cause_decides() -> None:
    outer = DriverError(2003, "Can't connect to MySQL server on 'db'")
    outer.__cause__ = socket.gaierror(-2, "Name or service not known")

    assert str(cannot_connect(MYSQL, outer)) == (
        "cannot connect to mysql+asyncmy://ada:***@db/shop: Can't connect to MySQL server on 'db' (2003): "
        "[Errno -2] Name or service not known. No host has the name 'db': check it in the URL"
    )


def test_a_refusal_is_caught_as_sqlalchemys_and_as_pythons() -> None:
    error = cannot_connect(MYSQL, DriverError("no"))

    assert isinstance(error, CannotConnect)
    assert isinstance(error, OperationalError)
    assert isinstance(error, ConnectionError)


# -- TLS -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [None, False, "", "false", "OFF", "disabled"])
def test_no_tls(asked: object) -> None:
    assert tls_context(asked) is None


@pytest.mark.parametrize("asked", [True, "true", "1", "REQUIRED", {}, {"check_hostname": True}])
def test_tls_verifies_the_server(asked: object) -> None:
    context = tls_context(asked)

    assert context is not None
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_the_name_of_the_host_may_be_left_unchecked_but_not_the_certificate() -> None:
    context = tls_context({"check_hostname": False})

    assert context is not None
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert not context.check_hostname


def test_a_context_of_the_users_own_is_used_as_it_is() -> None:
    mine = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    assert tls_context(mine) is mine


@pytest.mark.parametrize("asked", ["perhaps", 7, {"colour": "red"}])
def test_what_means_nothing_is_refused(asked: object) -> None:
    with pytest.raises(ConfigError, match="which means nothing here; write ssl=true, or ssl_ca="):
        tls_context(asked)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "ca.pem")

    with pytest.raises(ConfigError) as caught:
        tls_context({"ca": missing})
    assert str(caught.value).startswith(f"the files for TLS, {{'ca': {missing!r}}}, cannot be used: ")
