"""A MariaDB server of its own."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pymysql

from tests.helpers.servers import binaries
from tests.helpers.servers.place import Template, User
from tests.helpers.servers.server import ADMIN, PASSWORD, Row, Server


class MariaServer(Server):
    """A MariaDB server of its own, with utf8mb4.

    Example:
        with MariaServer(fast=True) as server:
            url = server.database()  # mysql://name:password@127.0.0.1:port/name
    """

    kind = "mariadb"
    scheme = "mysql"
    stop_signal = signal.SIGTERM
    quit_signal = signal.SIGKILL
    #: Read by the server at each start, before it answers.
    init_sql: ClassVar[str] = (
        f"create user if not exists {ADMIN}@'%' identified by '{PASSWORD}';\n"
        f"grant all on *.* to {ADMIN}@'%' with grant option;\n"
        f"alter user root@localhost identified by '{PASSWORD}';\n"
        # An anonymous user would shadow `name@'%'`.
        "delete from mysql.global_priv where user = '';\n"
        "flush privileges;\n"
    )
    own_settings: ClassVar[dict[str, str | int]] = {}
    #: What spares the disk.
    fast_settings: ClassVar[dict[str, str | int]] = {
        "innodb-flush-log-at-trx-commit": 0,
        "innodb-flush-method": "nosync",
        "innodb-doublewrite": 0,
        "sync-frm": 0,
    }

    def _find(self) -> binaries.Binaries:
        return binaries.mariadb()

    def _user(self) -> User:
        return User.unprivileged("mysql", "nobody")

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    def _template(self) -> Template:
        name = f"{self.kind}-{'.'.join(map(str, self.version))}"
        return Template(name, self._init(), self.user, {})

    def _init(self) -> tuple[str, ...]:
        """Return the command that fills a data folder."""
        return (
            str(self.binaries.init),
            "--no-defaults",
            "--datadir={folder}/data",
            "--auth-root-authentication-method=normal",
            "--skip-name-resolve",
            "--skip-test-db",
        )

    def _arguments(self) -> list[str]:
        init = self.folder / "init.sql"
        init.write_text(self.init_sql, encoding="utf-8")
        self.user.own(init)
        settings: dict[str, str | int] = {
            "datadir": str(self.folder / "data"),
            "bind-address": self.host,
            "port": self.port,
            "socket": str(self.socket),
            "pid-file": str(self.folder / "pid"),
            "init-file": str(init),
            "tmpdir": str(self.folder),
            "character-set-server": "utf8mb4",
            # Without it the server asks for the name of who connects, and knows this machine by another one.
            "skip-name-resolve": 1,
        }
        settings |= self.own_settings | (self.fast_settings if self.fast else {}) | self.settings
        return ["--no-defaults", *(f"--{name.replace('_', '-')}={value}" for name, value in settings.items())]

    def _create(self, name: str, password: str) -> None:
        statements = [
            f"create database {name}",
            f"create user {name}@'%' identified by '{password}'",
            f"grant all on {name}.* to {name}@'%'",
        ]
        self._execute(statements, None)

    def _drop(self, name: str) -> None:
        # `hard` does not wait for what it interrupts; a transaction of the user would hold the tables.
        self._execute([f"kill hard user {name}", f"drop database {name}", f"drop user {name}@'%'"], None)

    def _refusals(self) -> tuple[type[Exception], ...]:
        return (pymysql.err.OperationalError,)

    def _execute(self, statements: Sequence[str], database: str | None) -> list[Row]:
        with (
            closing(
                pymysql.connect(
                    unix_socket=str(self.socket),
                    user=ADMIN,
                    password=PASSWORD,
                    database=database,
                    autocommit=True,
                    charset="utf8mb4",
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())
