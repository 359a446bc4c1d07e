"""A server of Oracle's MySQL of its own, for where there is no MariaDB."""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar

import pymysql

from tests.helpers.servers import binaries
from tests.helpers.servers.mariadb import MariaServer
from tests.helpers.servers.server import ADMIN, PASSWORD


class MysqlServer(MariaServer):
    """A MySQL server of its own: what MariaDB does in another way stands here.

    Example:
        with MysqlServer(fast=True) as server:
            url = server.database()  # mysql://name:password@127.0.0.1:port/name
    """

    kind = "mysql"
    # Each statement has a line of its own: it reads them line by line.
    init_sql: ClassVar[str] = (
        f"create user if not exists {ADMIN}@'%' identified by '{PASSWORD}';\n"
        f"grant all on *.* to {ADMIN}@'%' with grant option;\n"
        f"alter user root@localhost identified by '{PASSWORD}';\n"
    )
    fast_settings: ClassVar[dict[str, str | int]] = {
        "innodb-flush-log-at-trx-commit": 0,
        "innodb-flush-method": "nosync",
        "innodb-doublewrite": "OFF",
        "sync-binlog": 0,
    }
    # Its second protocol would listen on a port of its own, on every address. Without certificates it speaks
    # no TLS, as MariaDB does not: a proxy can look into what is said.
    own_settings: ClassVar[dict[str, str | int]] = {
        "mysqlx": "OFF",
        "auto-generate-certs": "OFF",
        # A package's default may name a folder that the programs alone do not bring.
        "secure-file-priv": "NULL",
    }

    def _find(self) -> binaries.Binaries:
        return binaries.mysql()

    def _init(self) -> tuple[str, ...]:
        return (
            str(self.binaries.init),
            "--no-defaults",
            "--initialize-insecure",
            "--datadir={folder}/data",
            "--innodb-redo-log-capacity=8M",
            "--innodb-flush-method=nosync",
            "--auto-generate-certs=OFF",
        )

    def _drop(self, name: str) -> None:
        # It has no statement that ends all connections of a user.
        theirs = f"select id from information_schema.processlist where user = '{name}'"
        for (number,) in self._execute([theirs], None):
            with suppress(pymysql.err.OperationalError):  # it has ended by itself meanwhile
                self._execute([f"kill {number}"], None)
        self._execute([f"drop database {name}", f"drop user {name}@'%'"], None)


def installed_family() -> type[MariaServer]:
    """Return the kind of server that `mysql://` leads to: MariaDB, or MySQL where only that is installed."""
    try:
        found = binaries.mysql_family()
    except binaries.ServerMissing:
        return MariaServer  # which says what to install
    return MysqlServer if found.product == "MySQL" else MariaServer
