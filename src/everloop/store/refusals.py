"""Why a server lets nobody in, in words that say what to do; never with the password."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

#: What the code of MySQL and MariaDB means.
_MYSQL = {
    1040: "full",
    1044: "rights",
    1045: "password",
    1049: "database",
    1129: "blocked",
    1130: "host",
    1203: "full",
    1226: "full",
    1251: "login",
    1698: "password",
    2003: "unreachable",
    2026: "tls",
}
#: What the SQLSTATE of PostgreSQL means.
_POSTGRESQL = {
    "28000": "password",
    "28P01": "password",
    "3D000": "database",
    "42501": "rights",
    "53300": "full",
    "57P03": "starting",
}
#: What Python's own errors mean.
_CLASSES: tuple[tuple[type[Exception], str], ...] = (
    (ssl.SSLCertVerificationError, "certificate"),
    (ssl.SSLError, "tls"),
    (socket.gaierror, "name"),
    (TimeoutError, "timeout"),
    (ConnectionRefusedError, "unreachable"),
)
#: What libpq says instead of a code while it connects.
_WORDS = (
    ("option", re.compile(r"unexpected keyword argument|invalid connection option")),
    ("password", re.compile(r"password authentication failed|no password supplied|role .* does not exist")),
    ("database", re.compile(r"database .* does not exist")),
    ("rights", re.compile(r"permission denied for database")),
    ("full", re.compile(r"too many (?:clients|connections)|remaining connection slots")),
    ("starting", re.compile(r"the database system is (?:starting up|shutting down|in recovery mode)")),
    ("certificate", re.compile(r"certificate verify failed|server certificate for .* does not match")),
    ("tls", re.compile(r"\b(?:ssl|tls)\b|certificate", re.IGNORECASE)),
    ("name", re.compile(r"resolve host|Name or service not known")),
    ("timeout", re.compile(r"timeout|timed out", re.IGNORECASE)),
    ("unreachable", re.compile(r"refused|unreachable|No such file|Can't connect", re.IGNORECASE)),
    # What a server has said in another language.
    ("refused", re.compile(r"FATAL|[^\x00-\x7f]")),
)
_ADVICE = {
    "blocked": "An administrator unblocks it there: FLUSH HOSTS",
    "full": "The server has no place left: give app.database(...) a smaller pool_size, run fewer processes, "
    "or raise the server's max_connections",
    "host": "The server lets the user in from other hosts only; as an administrator: "
    "CREATE USER '{user}'@'%' IDENTIFIED BY '...'",
    "login": "The driver does not know the server's way to log in; choose another for the user, or another "
    "driver",
    "name": "No host has the name {host!r}: check it in the URL",
    "option": "A parameter of the URL, or of connect_args, is not one that the driver knows",
    "password": "Check the user and the password in the URL; in a URL a password with one of @ : / ? # % is "
    "written as urllib.parse.quote(password, safe='') gives it",
    "refused": "Check the user, the password and the database in the URL",
    "starting": "Wait a moment and try again",
    "timeout": "Is the server running, and does a firewall let this machine through to {place}?",
    "tls": "TLS was asked for, and the connection is not made without: give the server a certificate and its "
    "authority to the URL, or ask for no TLS",
    "unreachable": "Is the server running, and are host and port right? They are {place}",
}
_CREATE = {
    "mysql": "Create it: CREATE DATABASE {database} CHARACTER SET utf8mb4",
    "postgresql": "Create it: CREATE DATABASE {database}",
}
_GRANT = {
    "mysql": "The user may not use it, or there is no such database; as an administrator: CREATE DATABASE IF "
    "NOT EXISTS {database} CHARACTER SET utf8mb4; GRANT ALL ON {database}.* TO '{user}'@'%'",
    "postgresql": "As an administrator: GRANT CONNECT ON DATABASE {database} TO {user}",
}
_PROVE = {
    "mysql": "The server's certificate does not prove who it is: give the authority that has signed it, "
    "ssl_ca=/path/ca.pem; ssl_check_hostname=false leaves its name out, and with ssl_verify=false the "
    "connection is encrypted for whoever answers",
    "postgresql": "The server's certificate does not prove who it is: give the authority that has signed it, "
    "sslrootcert=/path/ca.pem; sslmode=verify-ca leaves its name out, and with sslmode=require the "
    "connection is encrypted for whoever answers",
}
#: What does not pass by itself: something has to be set right first.
_LASTING = ("certificate", "database", "host", "login", "name", "option", "password", "rights", "tls")


@dataclass(frozen=True)
class Door:
    """Where somebody wanted in.

    Attributes:
        shown: The URL without its password.
        at: Where that is, when host and port do not say: a socket, or several hosts.
    """

    family: Literal["mysql", "postgresql"]
    shown: str
    user: str | None
    password: str | None
    host: str | None
    port: int | None
    database: str | None
    at: str = ""

    @property
    def place(self) -> str:
        """Where the server should be."""
        port = self.port or (5432 if self.family == "postgresql" else 3306)
        return self.at or f"{self.host or 'localhost'}:{port}"


@dataclass(frozen=True)
class Refusal:
    """What is to be said.

    Attributes:
        lasting: Whether it does not pass by itself.
    """

    text: str
    lasting: bool


def refusal(door: Door, error: BaseException) -> Refusal:
    """Explain `error`, which a driver has raised while it connected."""
    said = _said(error)
    if door.password is not None and len(door.password) > 2:
        said = said.replace(door.password, "***")
    kind = next((kind for each in _causes(error) if (kind := _kind(each))), "")
    advice = {
        "certificate": _PROVE[door.family],
        "database": _CREATE[door.family],
        "rights": _GRANT[door.family],
        **_ADVICE,
    }.get(kind, "")
    if kind == "unreachable" and door.at.startswith("the socket"):
        advice = "Is the server running on this machine, and is its socket right? It is {place}"
    told = advice.format(
        user=door.user or "...", host=door.host, database=door.database or "...", place=door.place
    )
    text = f"cannot connect to {door.shown}: {said}" + (f". {told}" if told else "")
    return Refusal(text, kind in _LASTING)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the innermost first: the driver's own words hide what the system has said."""
    if error is not None:
        # PyMySQL keeps the system's error in an attribute of its own.
        yield from _causes(error.__cause__ or getattr(error, "original_exception", None))
        yield error


def _said(error: BaseException) -> str:
    """Return what the driver says, in one line."""
    code, *rest = error.args or ("",)
    texts = [str(each) for each in _causes(error)]
    text = f"{rest[-1]} ({code})" if rest and isinstance(code, int) else str(error)
    if len(texts) > 1 and texts[0] not in text:
        text += f": {texts[0]}" if texts[0] else f": {type(next(_causes(error))).__name__}"
    return " ".join((text or type(error).__name__).split()).rstrip(".?")


def _kind(error: BaseException) -> str:
    for cls, kind in _CLASSES:
        if isinstance(error, cls):
            return kind
    code = error.args[0] if error.args else None
    if isinstance(code, int) and code in _MYSQL:
        return _MYSQL[code]
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str) and state in _POSTGRESQL:
        return _POSTGRESQL[state]
    text = str(error)
    return next((kind for kind, words in _WORDS if words.search(text)), "")
