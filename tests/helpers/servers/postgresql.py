"""A PostgreSQL server of its own."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import psycopg

from tests.helpers.servers import binaries
from tests.helpers.servers.place import Template, User
from tests.helpers.servers.server import ADMIN, PASSWORD, Row, Server


class PostgresServer(Server):
    """A PostgreSQL server of its own.

    Example:
        with PostgresServer(fast=True) as server:
            url = server.database()  # postgresql://name:password@127.0.0.1:port/name
    """

    kind = "postgresql"
    scheme = "postgresql"
    # "Fast" shutdown throws clients out; SIGTERM would wait until they go by themselves.
    stop_signal = signal.SIGINT
    # "Immediate" shutdown also removes the shared memory, which SIGKILL leaves.
    quit_signal = signal.SIGQUIT

    def _find(self) -> binaries.Binaries:
        return binaries.postgresql()

    def _user(self) -> User:
        return User.unprivileged("postgres", "nobody")

    @property
    def socket(self) -> Path:
        return self.folder / f".s.PGSQL.{self.port}"

    def _template(self) -> Template:
        command = (
            str(self.binaries.init),
            "--pgdata={folder}/data",
            f"--username={ADMIN}",
            "--auth=scram-sha-256",
            "--pwfile={folder}/password",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        )
        name = f"{self.kind}-{'.'.join(map(str, self.version))}"
        return Template(name, command, self.user, {"password": PASSWORD})

    def _arguments(self) -> list[str]:
        settings: dict[str, str | int] = {
            "listen_addresses": self.host,
            "port": self.port,
            "unix_socket_directories": str(self.folder),
            "unix_socket_permissions": "0700",
        }
        if self.fast:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        settings |= self.settings
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return ["-D", str(self.folder / "data"), *options]

    def _create(self, name: str, password: str) -> None:
        statements = [
            f"create role {name} login password '{password}'",
            f"create database {name} owner {name}",
        ]
        self._execute(statements, None)

    def _drop(self, name: str) -> None:
        self._execute([f"drop database {name} with (force)", f"drop role {name}"], None)

    def _refusals(self) -> tuple[type[Exception], ...]:
        return (psycopg.OperationalError,)

    def _execute(self, statements: Sequence[str], database: str | None) -> list[Row]:
        return executed(self, statements, database)


def executed(server: Server, statements: Sequence[str], database: str | None) -> list[Row]:
    """Execute statements as the administrator; return the rows of the last one.

    Nothing is prepared: through a pooler, that would be for another server's side.
    """
    with psycopg.connect(
        host=str(server.folder),
        port=server.port,
        user=ADMIN,
        password=PASSWORD,
        dbname=database or "postgres",
        autocommit=True,
        prepare_threshold=None,
    ) as connection:
        rows: list[Row] = []
        for statement in statements:
            cursor = connection.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
    return rows
