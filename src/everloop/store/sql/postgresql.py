"""The store on PostgreSQL."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial

from psycopg.conninfo import conninfo_to_dict

from everloop._core.errors import ConfigError, UsageError
from everloop.store.sql.dialect import migrations, split
from everloop.store.sql.runners.hand import Hand, execute
from everloop.store.sql.runners.postgresql import BY_HAND, PostgresRunner, connector, explained
from everloop.store.sql.runners.postgresql_listener import PostgresListener
from everloop.store.sql.runners.postgresql_pipe import Connection
from everloop.store.sql.server_store import ServerStore
from everloop.store.sql.verbs.statement import Statement

#: The first version with everything that the statements use.
OLDEST = 13
_FIND = "SELECT 1 FROM pg_catalog.pg_class WHERE relname = 'ever_meta' AND pg_table_is_visible(oid)"
_NAME = "INSERT INTO ever_meta VALUES ('identity', %s)"
_DONE = """
INSERT INTO ever_meta VALUES ('schema', %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
#: Guards the migrations: the number is ours alone, by chance.
_LOCK = 7_170_411_203_398_861


class PostgresStore(ServerStore[Connection]):
    """Durable state in a PostgreSQL database (see `ServerStore`)."""

    dialect = "postgresql"
    _dialects = ("postgresql",)
    _folding = BY_HAND

    def _thread(self, name: str) -> PostgresRunner:
        # What only reads looks for whatever a user asks for; all else is made for its indexes.
        return PostgresRunner(partial(self._connect, by_index=name != "reads"), name, self._fault)

    def _connect(self, *, by_index: bool) -> Connection:
        connection = connector(self.url, by_index=by_index)()
        self._set_clock(connection)
        return connection

    def _listener(self, session: int, wake: Callable[[], None]) -> PostgresListener:
        return PostgresListener(connector(self.url), session, wake, worker=session in self._workers)

    def _enter_with_keys(self, hand: Hand) -> None:
        ((level,),) = execute(hand, Statement("isolation", {}), self._folding)
        if level != "read committed":
            raise UsageError(
                f"a call with a key cannot be submitted in this transaction on {self._shown}: it is {level}, "
                "and does not see the calls with the same key that others have submitted since it began. "
                "Begin it as READ COMMITTED, or submit after the commit"
            )

    def _ask_time(self, connection: Connection) -> int:
        with explained("clock_timestamp"):
            row = connection.execute(
                "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
            ).fetchone()
        return int(row[0]) if row else 0

    def _check_server(self, connection: Connection) -> None:
        version = connection.info.server_version // 10_000
        if version < OLDEST:
            raise ConfigError(f"this server is PostgreSQL {version}; Everloop needs {OLDEST} or newer")

    def _migrate(self, connection: Connection) -> None:
        with explained("migrating"), connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            found = self._schema(connection)
            for number, _, script in migrations("postgresql"):
                if number > found:
                    for statement in split(script):
                        connection.execute(statement.encode())
            if found == 0:
                connection.execute(_NAME, (secrets.randbits(62),))
            connection.execute(_DONE, (migrations("postgresql")[-1][0],))

    def _forbidden(self, error: BaseException | None) -> bool:
        return getattr(error, "sqlstate", None) == "42501"

    def _grant(self) -> str:
        user = conninfo_to_dict(self.url).get("user") or "the_user"
        return f"As an administrator, in that database: GRANT CREATE ON SCHEMA public TO {user}"

    def _read_identity(self, connection: Connection) -> int:
        with explained("reading the database's identity"):
            row = connection.execute("SELECT value FROM ever_meta WHERE name = 'identity'").fetchone()
        return int(row[0]) if row else 0

    def _schema(self, connection: Connection) -> int:
        """Return the schema's number; 0 when there is none."""
        with explained("reading the schema's number"):
            # Not to_regclass: inside a transaction it may still answer what held when that began.
            if connection.execute(_FIND).fetchone() is None:
                return 0
            row = connection.execute("SELECT value FROM ever_meta WHERE name = 'schema'").fetchone()
            return int(row[0]) if row else 0
