"""A connection to MySQL or MariaDB: opened by PyMySQL, behind a typed border, with errors in our words.

Many statements travel as one query, and their results come back one after the other: one round trip.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256

import pymysql
from pymysql.constants import CLIENT, SERVER_STATUS

from everloop._core.errors import ConfigError, StoreError, StoreUnavailable
from everloop.store.refusals import refusal
from everloop.store.sql.mysql_address import Address, unverified
from everloop.store.sql.runners.mysql_wire import INTERRUPTED, Rows, Wire
from everloop.store.sql.runners.server import FULL_DISK, PATIENCE, CannotOpen, Collision, Held, Lost

#: What another transaction did to ours: begin anew. 1205 undoes the statement only; the rest is rolled back.
_COLLISIONS = {
    1020,  # ER_CHECKREAD: a row has changed since it was read (MariaDB)
    1062,  # ER_DUP_ENTRY: the same id, or lane, was added at the same time
    1205,  # ER_LOCK_WAIT_TIMEOUT
    1213,  # ER_LOCK_DEADLOCK
}
#: Of these: it had to wait.
_HELD = {1205}
#: The connection is gone, or was never there.
_LOST = {
    0,  # PyMySQL itself has given up
    1053,  # ER_SERVER_SHUTDOWN
    1158,  # ER_NET_READ_ERROR
    1159,  # ER_NET_READ_INTERRUPTED
    1160,  # ER_NET_ERROR_ON_WRITE
    1161,  # ER_NET_WRITE_INTERRUPTED
    1927,  # ER_CONNECTION_KILLED (MariaDB)
    2002,  # CR_CONNECTION_ERROR
    2003,  # CR_CONN_HOST_ERROR
    2006,  # CR_SERVER_GONE_ERROR
    2013,  # CR_SERVER_LOST
    2014,  # CR_COMMANDS_OUT_OF_SYNC
    2055,  # CR_SERVER_LOST_EXTENDED
    4031,  # ER_CLIENT_INTERACTION_TIMEOUT (MySQL)
}
#: The server is there, and will serve again.
_PASSING = {
    1021,  # ER_DISK_FULL
    1037,  # ER_OUTOFMEMORY
    1038,  # ER_OUT_OF_SORTMEMORY
    1040,  # ER_CON_COUNT_ERROR
    1041,  # ER_OUT_OF_RESOURCES
    1114,  # ER_RECORD_FILE_FULL
    1129,  # ER_HOST_IS_BLOCKED
    1203,  # ER_TOO_MANY_USER_CONNECTIONS
    1206,  # ER_LOCK_TABLE_FULL
    1226,  # ER_USER_LIMIT_REACHED
    1290,  # ER_OPTION_PREVENTS_STATEMENT: --read-only
    1792,  # ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
    1836,  # ER_READ_ONLY_MODE
    1969,  # ER_STATEMENT_TIMEOUT (MariaDB)
    3024,  # ER_QUERY_TIMEOUT (MySQL)
}
#: Of these: the server has no space left.
_FULL = (1021, 1114)
_DENIED = 1142  # ER_TABLEACCESS_DENIED_ERROR
_UNENCRYPTED = 2026  # CR_SSL_CONNECTION_ERROR
#: Seconds for which a transaction may stand still before the server ends the connection. A process that
#: stands still within one has its system answer for it for ever, and nobody could take over what it holds.
SILENT = 5
#: The same on MySQL, which ends all connections that say nothing: the next verb opens another.
_IDLE = "SET wait_timeout = 30"
#: Sent once; a `SET` that names no scope is the session's. The zone: a local instant may come twice a year.
_SETTINGS = (
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;\n"
    "SET sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00',"
    " innodb_lock_wait_timeout = 5, lock_wait_timeout = 5"
    f" /*M!, idle_transaction_timeout = {SILENT} */;\n"
    "SELECT VERSION(), CONNECTION_ID(), @@max_allowed_packet, DATABASE();\n"
    "SHOW VARIABLES WHERE variable_name IN ('log_bin', 'wsrep_on') AND value = 'ON';\n"
    "SHOW SESSION STATUS LIKE 'Ssl_cipher'"
)


class Unencrypted(ConfigError, StoreUnavailable):
    """TLS was asked for, and the server does not speak it."""


class Interrupted(StoreUnavailable):
    """Somebody has killed the query."""


class MysqlConnection:
    """An open connection with the settings that the store needs.

    Attributes:
        version: What the server says of its version.
        number: Under which the server knows the connection.
        answered: Statements of the last `run` that have been answered; the next one failed.
        shows_early: Whether others see what is committed before it is on the disk, as on MariaDB where no
            other log comes between the two.
    """

    def __init__(self, raw: pymysql.Connection, patience: float) -> None:
        self._raw = raw
        # PyMySQL closes it where another thread can shut it down only by itself.
        self._socket: socket.socket = raw._sock  # type: ignore[attr-defined] # noqa: SLF001 - there is no other way
        _keep_alive(self._socket)
        self._socket.settimeout(patience)
        self._unasked = select.poll()  # whether it says something
        self._unasked.register(self._socket, select.POLLIN)
        self._wire = Wire(self._socket, getattr(raw, "server_status", 0))  # the attribute is not in the stubs
        self._largest = 0
        self._bells = ""
        self.version = ""
        self.number = 0
        self.answered = 0
        self.shows_early = False

    def prepare(self, *, encrypted: bool) -> None:
        """Set the session up.

        Raises:
            Unencrypted: It should be, and is not.
        """
        *_, ((self.version, self.number, self._largest, database),), logs, cipher = self.run(
            _SETTINGS, "connecting"
        )
        self.shows_early = self.is_mariadb and not logs
        self._bells = f"everloop bell {sha256(database.encode()).hexdigest()[:24]} "
        if encrypted and not (cipher and cipher[0][1]):
            raise Unencrypted(_NO_TLS)
        if not self.is_mariadb:
            self.run(_IDLE, "connecting")

    @property
    def is_mariadb(self) -> bool:
        """Whether the server is MariaDB, not MySQL itself."""
        return "mariadb" in self.version.lower()

    def run(self, sql: str, doing: str | Sequence[str], results: list[Rows] | None = None) -> list[Rows]:
        """Execute statements in order, in one round trip; return the rows of each.

        Args:
            sql: The statements, with semicolons between them.
            doing: What it is for, for messages; or that for each statement.
            results: Where the rows are put, also those of the statements before one that fails.

        Raises:
            StoreError: One failed, and those behind it have not been executed.
        """
        self.answered = 0
        size = len(sql.encode()) if len(sql) * 4 >= self._largest else 0
        if self._largest and size >= self._largest:
            raise StoreError(
                f"the request needs a packet of {size:,} bytes, but the server takes {self._largest:,}; set "
                "its max_allowed_packet higher, or let calls and results carry less"
            )
        results = [] if results is None else results
        try:
            self._wire.ask(sql.encode())
            for rows in self._wire.results():
                results.append(rows)
                self.answered += 1
        except pymysql.MySQLError as error:
            if not isinstance(doing, str):
                doing = doing[self.answered] if self.answered < len(doing) else "COMMIT"
            raise explain(error, doing) from error
        return results

    def sleep(self, query: bytes, hear: Callable[[Rows], None]) -> bool:
        """Ask something, and sleep; tell whether somebody has ended the sleep, where the server says so.

        Args:
            query: Two statements, of which the second one is the sleep.
            hear: Called with the rows of the first one as soon as they are there: the sleep has begun.

        Raises:
            Interrupted: Somebody has ended the first one.
            StoreError: One of them failed.
        """
        try:
            self._wire.ask(query)
            hear(next(self._wire.results()))
            return self._wire.is_interrupted()
        except pymysql.MySQLError as error:
            raise explain(error, "listening") from error

    def check_alive(self) -> None:
        """See that the server has not ended the connection while it was idle.

        Raises:
            Lost: It has. Once a commit is sent, nobody could tell whether it was received.
        """
        if self._unasked.poll(0):  # it says something without being asked, or nothing ever again
            raise Lost("the connection to MySQL is lost: the server has ended it")

    def bell(self, session: int | str) -> str:
        """Return the name of the lock that a session's listener holds, as a literal.

        Names of locks are the whole server's, and 64 characters long at most.
        """
        return f"'{self._bells}{session}'"

    def literal(self, value: str) -> str:
        """Write a text as a literal of SQL."""
        # A proxy may have reset what we set.
        if self._wire.status & SERVER_STATUS.SERVER_STATUS_NO_BACKSLASH_ESCAPES:
            return "'" + value.replace("'", "''") + "'"
        # Not by PyMySQL, which takes thirty times as long over the JSON of a turn. Nothing else has a meaning
        # between quotes, in utf8mb4.
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def close(self) -> None:
        with suppress(pymysql.MySQLError):  # it was closed already
            self._raw.close()

    def interrupt(self) -> None:
        """End what another thread waits for: it gets `Lost`."""
        with suppress(OSError):  # it is not connected any more
            self._socket.shutdown(socket.SHUT_RDWR)


def connect(address: Address, patience: float = PATIENCE) -> MysqlConnection:
    """Open a connection.

    Raises:
        StoreError: The server does not answer, refuses, or speaks no TLS when that was asked for.
    """
    try:
        raw = _dial(address, patience)
    except pymysql.MySQLError as error:
        if _said(error)[0] == _UNENCRYPTED:
            raise explain(error, "connecting") from error
        raise CannotOpen(refusal(address.door, error)) from error
    except RuntimeError as error:
        # PyMySQL: the server wants the password encrypted, by TLS or else by a package that is not there.
        raise StoreError(
            f'cannot log in ({error}); ask for TLS with ?ssl=true in the URL, or pip install "pymysql[rsa]"'
        ) from error
    connection = MysqlConnection(raw, patience)
    try:
        connection.prepare(encrypted=address.tls is not None)
    except BaseException:
        connection.close()
        raise
    return connection


def _dial(address: Address, patience: float) -> pymysql.Connection:
    """Connect: with TLS where it was asked for, and else with TLS where the server speaks it."""
    if address.tls is not None:
        return _log_in(address, patience, address.tls)
    if not (address.plain or address.unix_socket):
        # Not left to PyMySQL: it would read all certificates of the system each time, for nothing.
        try:
            return _log_in(address, patience, unverified())
        except pymysql.err.OperationalError as error:
            if _said(error)[0] != _UNENCRYPTED:
                raise
    return _log_in(address, patience, None)


def _log_in(address: Address, patience: float, tls: ssl.SSLContext | None) -> pymysql.Connection:
    return pymysql.Connection(
        host=address.host,
        port=address.port,
        unix_socket=address.unix_socket,
        user=address.user,
        password=address.password.encode(),
        database=address.database,
        charset="utf8mb4",
        autocommit=True,
        client_flag=CLIENT.MULTI_STATEMENTS | CLIENT.FOUND_ROWS,
        connect_timeout=10,
        read_timeout=patience,
        write_timeout=patience,
        ssl=tls,
        ssl_disabled=tls is None,
    )


def _keep_alive(line: socket.socket) -> None:
    """Have a server that has died noticed, where the system knows how."""
    if line.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for name, value in (
        ("TCP_KEEPIDLE", 20),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 30_000),
    ):
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


_KINDS: tuple[tuple[set[int], type[StoreError], str], ...] = (
    (_HELD, Held, "MySQL ended this transaction for another one"),
    (_COLLISIONS, Collision, "MySQL ended this transaction for another one"),
    (_LOST, Lost, "the connection to MySQL is lost"),
    ({INTERRUPTED}, Interrupted, "MySQL was told to stop this query"),
    (_PASSING, StoreUnavailable, "MySQL cannot go on now"),
    ({1153}, StoreError, "the request is larger than the server's max_allowed_packet; set it higher"),
)
_NO_TLS = (
    "the store's URL asks for TLS, but the server does not speak it: nothing was sent in plain text but the "
    "log-in; switch TLS on there (ssl_cert, ssl_key), or leave `ssl` out of the URL"
)
_NO_RIGHT = (
    "the user of the store's URL lacks a right on Everloop's tables; as an administrator: GRANT SELECT, "
    "INSERT, UPDATE, DELETE ON the_database.* TO 'the_user'@'%'. The server said"
)


def passes(code: int) -> bool:
    """Whether an error of the server's is about others, or about now."""
    return code in _COLLISIONS or code in _PASSING or code == INTERRUPTED


def explain(error: pymysql.MySQLError, doing: str) -> StoreError:
    """Return our error for one of PyMySQL's."""
    code, said = _said(error)
    told = f"({doing}): {said} ({code})" if code else f"({doing}): {said}"
    if code == _UNENCRYPTED and doing == "connecting":
        return Unencrypted(f"{_NO_TLS}. It said: {said}")
    if code == _DENIED and doing != "migrating":  # whoever makes the tables says more
        return StoreError(f"{_NO_RIGHT} {told}")
    for codes, kind, what in _KINDS:
        if code in codes:
            return kind(f"{what} {told}{FULL_DISK if code in _FULL else ''}")
    return StoreError(f"MySQL failed {told}")


def _said(error: pymysql.MySQLError) -> tuple[int, str]:
    """Return the server's number, or the client's, and its text; 0 where PyMySQL itself gave up."""
    match error.args:
        case (int(code), said, *_):
            return code, str(said) or "the connection is closed"
        case _:
            return 0, str(error)
