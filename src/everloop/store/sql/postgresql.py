"""The store on PostgreSQL."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial

from psycopg.conninfo import conninfo_to_dict

from everloop._core.clock import Clock, SystemClock
from everloop._core.errors import ConfigError, UsageError
from everloop._core.looks import Setting, Vitals
from everloop._core.records import Turn, TurnAnswer
from everloop.store.sql import blocked
from everloop.store.sql.dialect import migrations, oldest_of, split, under
from everloop.store.sql.runners.hand import Hand, execute
from everloop.store.sql.runners.postgresql import BY_HAND, PostgresRunner, explained
from everloop.store.sql.runners.postgresql_connection import LISTENING, NAME, Connection, connector
from everloop.store.sql.runners.postgresql_listener import PostgresListener
from everloop.store.sql.runners.thread import Fault
from everloop.store.sql.server_store import ServerStore
from everloop.store.sql.sql_store import is_durable
from everloop.store.sql.verbs.adding import lanes_of
from everloop.store.sql.verbs.statement import Statement
from everloop.store.sql.verbs.straight import is_small
from everloop.store.sql.verbs.turning import turn as take_turn

#: The first version with everything that the statements use.
OLDEST = 13
_FIND = "SELECT 1 FROM pg_catalog.pg_class WHERE relname = 'ever_meta' AND pg_table_is_visible(oid)"
_NAME = "INSERT INTO ever_meta (name, value) VALUES ('identity', %s)"
_DONE = """
INSERT INTO ever_meta (name, value) VALUES ('schema', %s), (%s, %s)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
#: Which of the tables this role may not use. (Other sequences are those of the tables themselves.)
_CLOSED = """
SELECT c.relname, pg_get_userbyid(c.relowner), n.nspname, current_user::text
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE pg_table_is_visible(c.oid) AND c.relname LIKE 'ever\\_%' AND (
    c.relkind = 'r' AND NOT (
        has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
        AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
    OR c.relkind = 'S' AND c.relname = 'ever_seq' AND NOT has_sequence_privilege(c.oid, 'USAGE'))
ORDER BY 1
"""
#: Ends our connections that wait for their client within a transaction.
_END_OURS = """
SELECT pid, pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
WHERE (%s OR EXISTS (SELECT 1 FROM ever_sessions WHERE until <= %s))
  AND datname = current_database() AND usename = current_user AND starts_with(application_name, %s)
  AND xact_start IS NOT NULL AND wait_event_type = 'Client' AND pid <> pg_backend_pid()
  AND state_change < clock_timestamp() - make_interval(secs => %s)
"""
#: Who holds rows of sessions that should have ended. A row that several hold does not name them.
_HOLDERS = """
WITH late AS (SELECT session, xmax FROM ever_sessions WHERE until <= %s)
SELECT DISTINCT a.pid, a.usename, a.application_name
FROM (SELECT xmax FROM late UNION ALL
      SELECT c.xmax FROM ever_calls AS c WHERE c.session IN (SELECT session FROM late)) AS held
JOIN pg_catalog.pg_locks AS l ON l.locktype = 'transactionid' AND l.transactionid = held.xmax
     AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()
JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
WHERE NOT starts_with(a.application_name, %s)
"""
_SIZE = """
SELECT coalesce(sum(pg_total_relation_size(oid)), 0), current_setting('server_version')
FROM pg_catalog.pg_class
WHERE relname LIKE 'ever\\_%' AND relkind = 'r' AND pg_table_is_visible(oid)
"""
_LOSS = "a crash of the server loses calls that were acknowledged"
_SETTINGS = (
    ("fsync", "on", "a power cut destroys the database"),
    ("full_page_writes", "on", "a power cut destroys the database"),
    ("synchronous_commit", "on", _LOSS),
)
#: Guards the migrations: the number is ours alone, by chance.
_LOCK = 7_170_411_203_398_861


class PostgresStore(ServerStore[Connection]):
    """Durable state in a PostgreSQL database (see `ServerStore`)."""

    dialect = "postgresql"
    _dialects = ("postgresql",)
    _folding = BY_HAND

    def __init__(self, url: str, *, clock: Clock | None = None, fault: Fault | None = None) -> None:
        super().__init__(url, clock=clock, fault=fault)
        self._listeners: dict[int, PostgresListener] = {}

    def _thread(self, name: str) -> PostgresRunner:
        # What only reads looks for whatever a user asks for; all else is made for its indexes.
        return PostgresRunner(partial(self._connect, by_index=name != "reads"), name, self._fault)

    def _connect(self, *, by_index: bool) -> Connection:
        connection = connector(self.url, by_index=by_index)()
        self._set_clock(connection)
        return connection

    async def turn(self, session: int, turn: Turn) -> TurnAnswer:
        if session in self._listeners and is_small(turn):
            await self._number({*turn.lanes, *lanes_of(turn.adds)})
            listener = self._listeners.get(session)
            direct = None if listener is None else listener.direct
            if direct is not None:
                begin = partial(self._begin, partial(take_turn, request=turn), session)
                done = await direct.run(begin, self._runner(), durable=is_durable(turn))
                if done is not None:
                    return done[1]
        return await super().turn(session, turn)

    def listen(self, session: int, wake: Callable[[], None]) -> Callable[[], None]:
        listener = self._listener(session, wake)
        if self._fault is None:  # what a test lets fail, it does in the thread
            self._listeners[session] = listener

        def stop() -> None:
            if self._listeners.get(session) is listener:
                del self._listeners[session]
            listener.stop()

        return stop

    def _listener(self, session: int, wake: Callable[[], None]) -> PostgresListener:
        connect = connector(self.url, by_index=True, name=LISTENING)
        return PostgresListener(connect, session, wake, worker=session in self._workers)

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
            known = migrations("postgresql")
            found = self._schema(connection)
            if found > known[-1].number:
                return  # a newer release was quicker
            for each in known:
                if each.number > found:
                    for statement in split(each.script):
                        connection.execute(statement.encode())
            if found == 0:
                connection.execute(_NAME, (secrets.randbits(62),))
            newest = known[-1].number
            connection.execute(_DONE, (newest, under(newest), oldest_of(known)))

    def _unblock(self, connection: Connection, before: int) -> None:
        with explained("looking for what blocks"):
            ours = connection.execute(
                _END_OURS, (self._blocked.somebody_died, before, NAME, blocked.SILENT_S)
            ).fetchall()
            others = connection.execute(_HOLDERS, (before, NAME)).fetchall()
        for number, done in ours:
            if done:
                blocked.ended(number)
        self._blocked.tell(
            {pid: f"{name or 'no application_name'}, role {role}" for pid, role, name in others},
            "holds",
            "SELECT pg_terminate_backend({})",
        )

    def _vitals(self, connection: Connection) -> Vitals:
        with explained("looking at the server"):
            found = connection.execute(_SIZE).fetchone()
            size, version = found or (0, "")
            names = tuple(name for name, *_ in _SETTINGS)
            rows = connection.execute(
                "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY(%s)", (list(names),)
            ).fetchall()
        values: dict[str, str] = dict(rows)
        ahead = self._ask_time(connection) - SystemClock().now()
        return Vitals(
            f"PostgreSQL {version}",
            int(size),
            ahead,
            tuple(Setting(name, values.get(name, ""), wanted, risk) for name, wanted, risk in _SETTINGS),
        )

    def _forbidden(self, error: BaseException | None) -> bool:
        return getattr(error, "sqlstate", None) == "42501"

    def _grant(self) -> str:
        user = conninfo_to_dict(self.url).get("user") or "the_user"
        return f"As an administrator, in that database: GRANT CREATE ON SCHEMA public TO {user}"

    def _read_meta(self, connection: Connection, name: str) -> int:
        with explained(f"reading the schema's {name}"):
            row = connection.execute("SELECT value FROM ever_meta WHERE name = %s", (name,)).fetchone()
        return int(row[0]) if row else 0

    def _schema(self, connection: Connection) -> int:
        """Return the schema's number; 0 when there is none."""
        with explained("reading the schema's number"):
            # Not to_regclass: inside a transaction it may still answer what held when that began.
            if connection.execute(_FIND).fetchone() is None:
                return 0
            closed = connection.execute(_CLOSED).fetchall()
        if closed:
            _, owner, schema, role = closed[0]
            raise ConfigError(
                f"the role {role!r} may not use the tables of Everloop in {self._shown}, which belong to the "
                f"role {owner!r} (rights are missing on {', '.join(name for name, *_ in closed)}). As "
                f"{owner!r} or an administrator, in that database: "
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}; "
                f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}"
            )
        return self._read_meta(connection, "schema")
