from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest

from everloop import ConfigError, StoreURLError
from everloop.store.sql.mysql import MysqlStore, check_version
from everloop.store.sql.mysql_address import address_of
from everloop.store.sql.runners.mysql_connection import MysqlConnection, Rows
from everloop.store.url import store_from_url


@pytest.mark.parametrize("name", ["mysql", "mariadb"])
@pytest.mark.parametrize("driver", ["", "+aiomysql", "+asyncmy", "+pymysql"])
def test_every_form_of_the_url_names_the_same_store(name: str, driver: str) -> None:
    store = store_from_url(f"{name}{driver}://ada:pw@db:3307/shop")

    assert isinstance(store, MysqlStore)
    assert store.url == "mysql://ada:pw@db:3307/shop"


def test_the_parts_of_a_url_may_be_percent_encoded() -> None:
    address = address_of("mysql://a%40b:p%2Fw%3A%C3%A9@[::1]/my%20shop?charset=utf8mb4")

    assert (address.user, address.password, address.database) == ("a@b", "p/w:é", "my shop")
    assert (address.host, address.port, address.unix_socket) == ("::1", 3306, None)
    assert (address.tls, address.plain) == (None, False)


def test_a_url_without_a_host_means_this_machine() -> None:
    address = address_of("mysql:///shop?unix_socket=/run/my%20sql.sock")

    assert (address.host, address.user, address.password) == ("localhost", None, "")
    assert address.unix_socket == "/run/my sql.sock"


def test_tls_is_asked_for_with_and_without_a_proof_of_who_answers(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text(CERTIFICATE, encoding="ascii")

    encrypted = address_of("mysql://h/d?ssl_verify=false").tls
    trusted = address_of("mysql://h/d?ssl=true").tls
    proven = address_of(f"mysql://h/d?ssl_ca={authority}").tls
    unnamed = address_of(f"mysql://h/d?ssl=1&ssl_ca={authority}&ssl_check_hostname=false").tls

    assert encrypted is not None and trusted is not None and proven is not None and unnamed is not None
    assert (encrypted.verify_mode, encrypted.check_hostname) == (ssl.CERT_NONE, False)
    assert (trusted.verify_mode, trusted.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (proven.verify_mode, proven.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (unnamed.verify_mode, unnamed.check_hostname) == (ssl.CERT_REQUIRED, False)
    assert [len(context.get_ca_certs()) for context in (proven, unnamed)] == [1, 1]
    assert address_of("mysql://h/d?ssl=false").plain


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "mysql://u:secret@h",
            "the store URL 'mysql://u:***@h' names no database; write mysql://user:password@host/database",
        ),
        (
            "mysql://h/a/b",
            "the store URL 'mysql://h/a/b' names no database; write mysql://user:password@host/database",
        ),
        (
            "mysql://h/d?ssl_cs=x",
            (
                "the store URL 'mysql://h/d?ssl_cs=x' has the unknown parameter 'ssl_cs'; did you mean "
                "'ssl_ca'?; known are charset, ssl, ssl_ca, ssl_cert, ssl_check_hostname, ssl_key, "
                "ssl_verify, unix_socket"
            ),
        ),
        (
            "mysql://h/d?charset=latin1",
            (
                "the store URL 'mysql://h/d?charset=latin1' asks for the charset 'latin1'; Everloop needs "
                "utf8mb4: leave `charset` out"
            ),
        ),
        (
            "mysql://h/d?ssl=maybe",
            "the store URL 'mysql://h/d?ssl=maybe' has ssl=maybe; write ssl=true or ssl=false",
        ),
        (
            "mysql://h/d?ssl=false&ssl_ca=/x",
            "the store URL 'mysql://h/d?ssl=false&ssl_ca=/x' says ssl=false beside ssl_ca; leave one out",
        ),
        (
            "mysql://h/d?ssl_verify=no&ssl_ca=/x",
            (
                "the store URL 'mysql://h/d?ssl_verify=no&ssl_ca=/x' says ssl_verify=false beside ssl_ca; "
                "leave one out"
            ),
        ),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, message: str) -> None:
    with pytest.raises(StoreURLError) as caught:
        store_from_url(url)
    assert str(caught.value) == message


def test_a_socket_is_where_the_server_is() -> None:
    assert address_of("mysql://h/d?unix_socket=/run/mysqld.sock").door.place == "the socket /run/mysqld.sock"


def test_a_wrong_port_is_refused() -> None:
    with pytest.raises(StoreURLError, match=r"'mysql://h:99999/d' has a wrong port \(.*\); write host:3306"):
        address_of("mysql://h:99999/d")


def test_a_file_of_tls_that_is_not_there_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"files of TLS cannot be used \(ssl_ca=/no/ca.pem\): .*No such file"
    ):
        address_of("mysql://h/d?ssl_ca=/no/ca.pem")


@pytest.mark.parametrize(
    "version",
    ["8.0.19", "8.4.3-log", "9.7.4-2", "10.6.0-MariaDB", "5.5.5-10.11.2-MariaDB-log", "12.0.1-MariaDB"],
)
def test_a_server_that_is_new_enough_is_taken(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("5.7.44", "MySQL"),
        ("8.0.18", "MySQL"),
        ("8.0.11-TiDB-v7.5.0", "MySQL"),
        ("10.5.27-MariaDB", "MariaDB"),
        ("strange", "MySQL"),
    ],
)
def test_a_server_that_is_too_old_is_refused(version: str, kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_version(version)
    assert str(caught.value) == (
        f"this server is {kind} {version}; Everloop needs MySQL 8.0.19 or MariaDB 10.6, or newer"
    )


class Answering(MysqlConnection):
    """A connection to a server with these settings of its binary log."""

    def __init__(self, binlog: str, log_bin: str) -> None:
        self.version = "8.0.36"
        self._log = (("binlog_format", binlog), ("log_bin", log_bin))

    def run(self, sql: str, doing: str | Sequence[str], results: list[Rows] | None = None) -> list[Rows]:
        return [((1,),), (), self._log]


def test_a_binary_log_by_statement_is_refused() -> None:
    store = MysqlStore("mysql://me@h/shop")
    for binlog, log_bin in (("ROW", "ON"), ("MIXED", "ON"), ("STATEMENT", "OFF")):
        store._check_server(Answering(binlog, log_bin))
    with pytest.raises(ConfigError, match=r"writes its binary log by statement, .* set binlog_format=ROW"):
        store._check_server(Answering("STATEMENT", "ON"))


#: Made for these tests; nobody has its key.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBeDCCAR+gAwIBAgIUX2rCO01Ej/BLy1iYsUxMNTtybM0wCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbm9ib2R5MCAXDTI2MTEyNjE2MTU0NVoYDzIxMjYxMTAyMTYx
NTQ1WjARMQ8wDQYDVQQDDAZub2JvZHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AARYX2/93d5NsGAXl8IxESRyf1wVcx2rZqoViKEFHhgtc4T+hK6T5lH5H+lsm0d4
bhzRw5HFGrO6i89uUuqA9J+lo1MwUTAdBgNVHQ4EFgQUmZrqsrj8ZYjl29AMa8DE
GxkrZCQwHwYDVR0jBBgwFoAUmZrqsrj8ZYjl29AMa8DEGxkrZCQwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiAzjFXFpKhKJhl6OdMjYnOEGd9P6Vuw
rLJ6UHq+X+/XDwIgTN7iUgGzad8NM1YksyiJXkYTQW/eQ08TXV7Z2q2G+Mg=
-----END CERTIFICATE-----
"""
