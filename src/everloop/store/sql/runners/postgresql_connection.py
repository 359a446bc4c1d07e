"""A connection to PostgreSQL with what the store needs, straight to the server or through a pooler.

Behind a pooler (PgBouncer in transaction mode) the server's side of a connection is another one for each
transaction: what was set, prepared or listened for there would be left to strangers. Such a connection is
known by the number that its server gives, which is not the one that it was told; everything that it needs is
then set in each transaction, for that transaction.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from everloop._core.errors import StoreURLError
from everloop._core.text import near_miss, without_password
from everloop.store.refusals import Door, Refusal, refusal
from everloop.store.sql.runners.server import CannotOpen

log = logging.getLogger("everloop")

#: What the store's own connections are called, so that whoever finds one that stands still knows it.
NAME = "everloop store"
#: And the one that hears what is notified.
LISTENING = f"{NAME} that listens"
#: A connection that has died is noticed, and a lock that is held for too long given up. A process that stands
#: still within a transaction (its machine sleeps, a debugger holds it) has its system answer for it for ever:
#: the server ends that one, or nobody could take over what it holds. (Not always: see `blocked.py`.)
_SETTINGS: dict[str, Any] = {
    "autocommit": True,
    "client_encoding": "UTF8",
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_OPTIONS = (
    "-c default_transaction_isolation=read\\ committed -c lock_timeout=5s"
    " -c idle_in_transaction_session_timeout=5s -c jit=off"
)
#: For what finds its rows by an index, always: a plan that was made while a table was small, or before
#: anybody had analysed it, is then as good as any later one, and is made once. Joins that begin by reading
#: the whole of one side are left out for that: it may be all calls that ever were.
_BY_INDEX = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "random_page_cost": "0",
    "plan_cache_mode": "force_generic_plan",
}
#: The same for one transaction.
_LOCALLY = (
    f"SELECT set_config('application_name', '{NAME}', true), set_config('lock_timeout', '5s', true), "
    "set_config('idle_in_transaction_session_timeout', '5s', true), set_config('jit', 'off', true)"
)
_DURABLY = ", set_config('synchronous_commit', 'on', true)"
_SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_LOOK = "SELECT pg_backend_pid(), current_setting('synchronous_commit')"
_WHO_SAID = "SELECT source FROM pg_catalog.pg_settings WHERE name = 'synchronous_commit'"
#: Who has said for whom that a commit need not be on the disk: said for more than this store.
_FOR_OTHERS = ("database", "user", "database user")


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """An open connection.

    Attributes:
        opening: What begins each transaction on it.
        pooled: Whether its server's side is another one for each transaction.
    """

    opening: tuple[str, ...] = ("BEGIN",)
    pooled = False


def connector(url: str, *, by_index: bool = False, name: str = NAME) -> Callable[[], Connection]:
    """Return what opens a connection with the settings that the store needs.

    Args:
        url: Of the database.
        by_index: For statements that find their rows by an index, always.
        name: What it is called on the server, before the name that the URL gives.

    Raises:
        StoreURLError: The URL is not one of PostgreSQL.
    """
    shown = without_password(url)
    parts = parts_of(url)
    door = _door(shown, parts)

    def connect() -> Connection:
        try:
            return _opened(parts, shown, name, _BY_INDEX if by_index else {})
        except psycopg.Error as error:
            raise CannotOpen(refusal(door, error)) from error

    return connect


def parts_of(url: str) -> dict[str, Any]:
    """Take a URL apart.

    Raises:
        StoreURLError: It is not one of PostgreSQL, or says what cannot be.
    """
    shown = without_password(url)
    try:
        # URLs for asyncpg have `ssl=` for `sslmode=`.
        parts: dict[str, Any] = dict(conninfo_to_dict(re.sub(r"(?<=[?&])ssl=", "sslmode=", url)))
    except psycopg.ProgrammingError as error:
        said = str(error).strip().partition("\n")[0]
        raise StoreURLError(
            f"the store URL {shown!r} cannot be read by PostgreSQL's library: {said}"
        ) from error
    mode = parts.get("sslmode")
    if mode is not None and mode not in _SSLMODES:
        raise StoreURLError(
            f"the store URL {shown!r} has sslmode={mode}{near_miss(str(mode), _SSLMODES)}; write one of "
            f"{', '.join(_SSLMODES)}"
        )
    for port in str(parts.get("port") or "5432").split(","):
        if port and not (port.isdecimal() and 0 < int(port) < 65_536):
            raise StoreURLError(
                f"the store URL {shown!r} has the port {port!r}; write a number from 1 to 65535, as in "
                "host:5432"
            )
    return parts


def _door(shown: str, parts: Mapping[str, Any]) -> Door:
    host, port = _word(parts, "host"), str(parts.get("port") or "5432")
    at = ""
    if host is not None and host.startswith("/"):
        at = f"the socket {host}/.s.PGSQL.{port}"
    elif host is not None and "," in host:
        hosts = host.split(",")
        ports = port.split(",") if "," in port else [port] * len(hosts)
        at = ", ".join(f"{each}:{number or 5432}" for each, number in zip(hosts, ports, strict=False))
    number = int(port) if port.isdecimal() else None
    return Door(
        "postgresql", shown, _word(parts, "user"), _word(parts, "password"), host, number,
        _word(parts, "dbname"), at,
    )  # fmt: skip


def _word(parts: Mapping[str, Any], name: str) -> str | None:
    value = parts.get(name)
    return None if value is None else str(value)


def _opened(parts: dict[str, Any], shown: str, name: str, plans: Mapping[str, str]) -> Connection:
    """Connect, and look where to."""
    own = str(parts.get("options") or "")
    named = parts.get("application_name")
    given = _SETTINGS | parts
    given["application_name"] = f"{name}: {named}" if named else name
    # What the URL says comes first: what the store needs has the last word.
    given["options"] = " ".join([own, _OPTIONS, *(f"-c {k}={v}" for k, v in plans.items())]).strip()
    try:
        connection = Connection.connect(**given)
    except psycopg.OperationalError as error:
        if "unsupported startup parameter" not in str(error):
            raise
        given["options"] = None
        connection = Connection.connect(**given)
    try:
        _look(connection, shown, own, plans)
    except BaseException:
        connection.close()
        raise
    return connection


def _look(connection: Connection, shown: str, own: str, plans: Mapping[str, str]) -> None:
    """See what this is a connection to, and what it still needs."""
    ((number, commits),) = connection.execute(_LOOK).fetchall()
    weak = commits == "off" and connection.execute(_WHO_SAID).fetchall()[0][0] in _FOR_OTHERS
    if weak:
        log.info(
            "everloop: synchronous_commit is off for this role or database on %s; the store's own "
            "transactions commit with it on (?options=-c%%20synchronous_commit=off in its URL leaves it off)",
            shown,
        )
    if number == connection.info.backend_pid:
        if weak:
            connection.execute("SET synchronous_commit = on")
        return
    if own:
        text = (
            f"cannot connect to {shown}: its `options` do not pass the pooler that it leads to. Set them for "
            "the role (ALTER ROLE ... SET ...), or let the URL lead to the server itself"
        )
        raise CannotOpen(Refusal(text, lasting=True))
    # PgBouncer passes this one setting on, and the name to whoever has the server's side next.
    connection.execute("SET application_name = 'everloop'")
    connection.pooled = True
    connection.prepare_threshold = None
    locally = _LOCALLY + (_DURABLY if weak else "")
    locally += "".join(f", set_config('{name}', '{value}', true)" for name, value in plans.items())
    connection.opening = ("BEGIN ISOLATION LEVEL READ COMMITTED", locally)


class _NotOurs(logging.Filter):
    """Keeps to itself what psycopg says of the store's connections: the store tells what came of it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.threadName or "").startswith("everloop-")


logging.getLogger("psycopg").addFilter(_NotOurs())
