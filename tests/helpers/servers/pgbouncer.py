"""A PgBouncer before a PostgreSQL server, as it comes: in transaction mode, with few connections."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from tests.helpers.servers import binaries
from tests.helpers.servers.place import Template, User
from tests.helpers.servers.postgresql import PostgresServer, executed
from tests.helpers.servers.server import ADMIN, PASSWORD, Row, Server


class Pooler(Server):
    """A PgBouncer of its own; databases and users are those of the server behind it.

    Example:
        with Pooler(server) as pooler:
            url = pooler.url(server.database())

    Args:
        target: The server.
        size: Connections that it opens to each database.
    """

    kind = "pgbouncer"
    scheme = "postgresql"
    stop_signal = signal.SIGTERM
    quit_signal = signal.SIGKILL

    def __init__(self, target: PostgresServer, size: int = 2) -> None:
        self.target = target
        self.size = size
        super().__init__()

    def url(self, url: str) -> str:
        """Lead a URL of the server through this."""
        parts = urlsplit(url)
        place = f"{parts.username}:{parts.password}@{self.host}:{self.port}"
        return parts._replace(netloc=place).geturl()

    def _find(self) -> binaries.Binaries:
        return binaries.pgbouncer()

    def _user(self) -> User:
        return User.unprivileged("postgres", "nobody")

    @property
    def socket(self) -> Path:
        return self.folder / f".s.PGSQL.{self.port}"

    def _template(self) -> Template:
        raise NotImplementedError("it has no data")

    def _fill(self) -> None:
        """It is all in the file that `_arguments` writes."""

    def _arguments(self) -> list[str]:
        users = self.folder / "users"
        users.write_text(f'"{ADMIN}" "{PASSWORD}"\n', encoding="utf-8")
        config = self.folder / "pgbouncer.ini"
        settings = {
            "listen_addr": self.host,
            "listen_port": self.port,
            "unix_socket_dir": self.folder,
            "auth_type": "scram-sha-256",
            "auth_file": users,
            "auth_user": ADMIN,
            "pool_mode": "transaction",
            "default_pool_size": self.size,
            "max_client_conn": 200,
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        target = f"* = host={self.target.host} port={self.target.port}"
        config.write_text("\n".join(["[databases]", target, "[pgbouncer]", *lines, ""]), encoding="utf-8")
        for path in (users, config):
            self.user.own(path)
        return [str(config)]

    def _create(self, name: str, password: str) -> None:
        self.target._create(name, password)

    def _drop(self, name: str) -> None:
        self.target._drop(name)

    def _refusals(self) -> tuple[type[Exception], ...]:
        return (psycopg.OperationalError,)

    def _execute(self, statements: Sequence[str], database: str | None) -> list[Row]:
        return executed(self, statements, database)
