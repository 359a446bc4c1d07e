"""The store on MySQL and MariaDB."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from functools import partial

from everloop._core.clock import Clock, SystemClock
from everloop._core.errors import ConfigError, SchemaError, StoreError, StoreUnavailable
from everloop._core.looks import Setting, Vitals
from everloop._core.records import Ended
from everloop.store.sql.blocked import SILENT_S
from everloop.store.sql.dialect import migrations, oldest_of, split, under
from everloop.store.sql.mysql_address import address_of
from everloop.store.sql.runners.mysql import BY_HAND, MysqlRunner
from everloop.store.sql.runners.mysql_connection import MysqlConnection, connect
from everloop.store.sql.runners.mysql_listener import SLEEP, Foretold, MysqlListener, Prompt
from everloop.store.sql.runners.server import PATIENCE
from everloop.store.sql.runners.thread import Fault
from everloop.store.sql.server_store import ServerStore
from everloop.store.sql.verbs.alone import Alone
from everloop.store.sql.verbs.numbers import FRESH, Numbers
from everloop.store.sql.verbs.scope import Scope

#: The first versions with everything that the statements use.
OLDEST = {"MySQL": (8, 0, 19), "MariaDB": (10, 6)}
#: Seconds in which whoever makes the schema at the same time should be done.
_PATIENCE = 30
#: Seconds after which the inbox is emptied of what has been told already: whoever goes on is not held up.
_LATER = 0.005
#: Names of locks are the whole server's, and 64 characters long at most.
_LOCK = "CONCAT('everloop ', LEFT(SHA2(DATABASE(), 256), 40))"
#: What the user lacks a right for: a command on a table, a database, the log-in's own.
_FORBIDDEN = (1142, 1044, 1227, 1370)
#: Given once, whoever comes again.
_NAME = "INSERT IGNORE INTO ever_meta (name, value) VALUES ('identity', {0})"
_META = "SELECT value FROM ever_meta WHERE name = '{}'"
#: The last words of the schema: without them, it is made again.
_DONE = "INSERT INTO ever_meta (name, value) VALUES ('{0}', {1}) ON DUPLICATE KEY UPDATE value = {1}"
_LATE = "SELECT 1 FROM ever_sessions WHERE until <= {:d} LIMIT 1"
#: Whose transaction is open for so long that it may be what holds rows of sessions that should have ended.
_HOLDERS = """
SELECT p.id, p.user FROM information_schema.innodb_trx AS t
JOIN information_schema.processlist AS p ON p.id = t.trx_mysql_thread_id
WHERE p.db = DATABASE() AND t.trx_started < NOW() - INTERVAL {:g} SECOND AND t.trx_rows_locked > 0
AND EXISTS (SELECT 1 FROM ever_sessions WHERE until <= {:d})
"""
_SIZE = """SELECT CAST(COALESCE(SUM(data_length + index_length), 0) AS SIGNED) FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_name LIKE 'ever\\_%'"""
_LOSS = "a crash of the server loses calls that were acknowledged"
_SETTINGS = (
    ("innodb_flush_log_at_trx_commit", "1", _LOSS),
    ("sync_binlog", "1", "after a power cut a replica may lack what the server has, or have more"),
    ("innodb_doublewrite", "ON", "a power cut destroys the database"),
)
_VARIABLES = """SHOW VARIABLES WHERE variable_name IN
('innodb_flush_log_at_trx_commit', 'sync_binlog', 'log_bin', 'innodb_doublewrite')"""
_FIND = """
SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'ever_meta'
"""
#: `state` was a text once.
_EARLY = """
SELECT 1 FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'ever_calls'
AND column_name = 'state' AND data_type = 'varchar'
"""


class MysqlStore(ServerStore[MysqlConnection]):
    """Durable state in a MySQL or MariaDB database (see `ServerStore`)."""

    dialect = "mysql"
    disorder = FRESH
    _dialects = ("mysql", "mariadb")
    _folding = BY_HAND

    def __init__(self, url: str, *, clock: Clock | None = None, fault: Fault | None = None) -> None:
        super().__init__(url, clock=clock, fault=fault)
        self._address = address_of(url)
        self._alone = Alone()
        self._spare = Numbers()
        self._told: dict[int, Callable[[list[Ended]], None]] = {}

    def _thread(self, name: str) -> MysqlRunner:
        return MysqlRunner(self._connect, name, self._fault)

    def _connect(self) -> MysqlConnection:
        connection = connect(self._address)
        self._set_clock(connection)
        return connection

    def _listener(self, session: int, wake: Callable[[], None]) -> MysqlListener:
        make = partial(connect, self._address, SLEEP + PATIENCE)

        def rung() -> None:
            self._alone.rung.add(session)
            wake()

        told, later = self._told.get(session), partial(self._look_later, wake)
        if session in self._workers:
            return MysqlListener(make, session, rung, prompt=Prompt(self._is_idle, later))
        return MysqlListener(make, session, rung, Foretold(self._is_quiet, told, later) if told else None)

    def foretell(self, session: int, told: Callable[[list[Ended]], None]) -> None:
        self._told = {session: told}  # a store serves one session at a time

    def _is_idle(self) -> bool:
        """Whether the worker that this store serves runs nothing; in the thread of a listener."""
        return self._alone.idle

    def _is_quiet(self) -> bool:
        """Whether no turn is under way, nor one of many; in the thread of a listener."""
        return self._hot is not None and not (self._hot.is_busy or self._alone.many)

    def _look_later(self, wake: Callable[[], None]) -> None:
        """Have a turn made (that takes what was told from the inbox), unless another does so before."""
        turns = self._alone.turns

        def look() -> None:
            if self._alone.turns == turns:
                wake()

        asyncio.get_running_loop().call_later(_LATER, look)

    def _scope(self, session: int | None) -> Scope:
        scope = super()._scope(session)
        scope.alone, scope.spare = self._alone, self._spare
        return scope

    def _ask_time(self, connection: MysqlConnection) -> int:
        # SYSDATE: NOW is that of the whole query. In decimals, which hold every microsecond.
        ((now,),) = connection.run(
            "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)", "asking for the time"
        )[0]
        return int(now)

    def _check_server(self, connection: MysqlConnection) -> None:
        check_version(connection.version)
        engines, others, binlog = connection.run(
            "SELECT 1 FROM information_schema.engines "
            "WHERE engine = 'InnoDB' AND support IN ('YES', 'DEFAULT');\n"
            "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE() "
            "AND table_name LIKE 'ever\\_%' AND table_type = 'BASE TABLE' AND engine <> 'InnoDB';\n"
            "SHOW VARIABLES WHERE variable_name IN ('binlog_format', 'log_bin')",
            "checking the server",
        )
        if not engines:
            raise ConfigError("this server has no InnoDB, and Everloop needs its transactions: switch it on")
        if others:
            told = ", ".join(f"{name} ({engine})" for name, engine in others)
            raise ConfigError(
                f"Everloop's tables must be in InnoDB, which has transactions; these are not: {told}. "
                "ALTER TABLE ... ENGINE=InnoDB changes that"
            )
        if dict(binlog) == {"binlog_format": "STATEMENT", "log_bin": "ON"}:
            raise ConfigError(
                "this server writes its binary log by statement, which does not go together with READ "
                "COMMITTED and SKIP LOCKED; set binlog_format=ROW (or MIXED)"
            )

    def _migrate(self, connection: MysqlConnection) -> None:
        # Statement by statement, for each is committed by itself: what a process that was killed has left is
        # gone on with.
        doing = "migrating"
        ((held,),) = connection.run(f"SELECT GET_LOCK({_LOCK}, {_PATIENCE})", doing)[0]
        if not held:
            raise StoreUnavailable(
                f"somebody else has been migrating this database for {_PATIENCE} s; look at SHOW PROCESSLIST"
            )
        try:
            known = migrations("mysql")
            found = self._schema(connection)
            if found > known[-1].number:
                return  # a newer release was quicker
            for each in known:
                if each.number > found:
                    for statement in split(each.script):
                        connection.run(statement, doing)
            connection.run(_NAME.format(secrets.randbits(62)), doing)
            connection.run(_DONE.format(under(known[-1].number), oldest_of(known)), doing)
            connection.run(_DONE.format("schema", known[-1].number), doing)
        finally:
            connection.run(f"DO RELEASE_LOCK({_LOCK})", doing)

    def _unblock(self, connection: MysqlConnection, before: int) -> None:
        # The server ends our own by itself (see `MysqlConnection.prepare`). Who may not see the transactions
        # of all gets an error, or no rows.
        if not connection.run(_LATE.format(before), "looking for who is late")[0]:
            self._blocked.tell({}, "", "")
            return
        try:
            found = connection.run(_HOLDERS.format(SILENT_S, before), "looking for what blocks")[0]
        except StoreError as error:
            if not self._forbidden(error.__cause__):
                raise
            found = []
        self._blocked.tell({number: f"user {user}" for number, user in found}, "may hold", "KILL {}")

    def _vitals(self, connection: MysqlConnection) -> Vitals:
        sizes, variables = connection.run(f"{_SIZE};\n{_VARIABLES}", "looking at the server")
        values = {str(name): str(value) for name, value in variables}
        names = [each for each in _SETTINGS if each[0] != "sync_binlog" or values.get("log_bin") == "ON"]
        kind = "MariaDB" if connection.is_mariadb else "MySQL"
        return Vitals(
            f"{kind} {connection.version}",
            int(sizes[0][0]),
            self._ask_time(connection) - SystemClock().now(),
            tuple(Setting(name, values.get(name, ""), wanted, risk) for name, wanted, risk in names),
        )

    def _forbidden(self, error: BaseException | None) -> bool:
        return bool(error and error.args and error.args[0] in _FORBIDDEN)

    def _grant(self) -> str:
        user, database = self._address.user or "the_user", self._address.database
        return f"As an administrator: GRANT ALL ON {database}.* TO '{user}'@'%'"

    def _read_meta(self, connection: MysqlConnection, name: str) -> int:
        rows = connection.run(_META.format(name), f"reading the schema's {name}")[0]
        return int(rows[0][0]) if rows else 0

    def _schema(self, connection: MysqlConnection) -> int:
        """Return the schema's number; 0 when there is none, or only a part of it."""
        tables = connection.run(_FIND, "looking for the schema")[0]
        found = self._read_meta(connection, "schema") if tables else 0
        if found and connection.run(_EARLY, "looking for the schema")[0]:
            raise SchemaError(
                f"the tables of Everloop in {self._shown} are from before the first release, which kept "
                "calls in another way, and nothing turns them into today's: export what you need with the "
                "version that made them, and give Everloop an empty database"
            )
        return found


def check_version(version: str) -> None:
    """Refuse a server that is too old.

    Raises:
        ConfigError: It is, or its version cannot be read.
    """
    kind = "MariaDB" if "mariadb" in version.lower() else "MySQL"
    # MariaDB may stand behind a version that it once told for the sake of replicas.
    match = re.match(r"(?:5\.5\.5-)?(\d+)\.(\d+)\.(\d+)", version)
    numbers = tuple(map(int, match.groups())) if match else ()
    if numbers < OLDEST[kind]:
        wanted = " or ".join(f"{name} {'.'.join(map(str, least))}" for name, least in OLDEST.items())
        raise ConfigError(f"this server is {kind} {version}; Everloop needs {wanted}, or newer")
