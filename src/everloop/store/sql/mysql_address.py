"""From a URL to what a connection to MySQL or MariaDB is made of."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from everloop._core.errors import ConfigError, StoreURLError
from everloop._core.text import near_miss, without_password
from everloop.store.refusals import Door

_TRUE, _FALSE = ("true", "1", "yes", "required"), ("false", "0", "no")
#: What a URL's query may say; `charset` is only there because URLs for SQLAlchemy have it.
_KNOWN = (
    "charset", "ssl", "ssl_ca", "ssl_cert", "ssl_check_hostname", "ssl_key", "ssl_verify", "unix_socket",
)  # fmt: skip


@dataclass(frozen=True)
class Address:
    """Where a server is, who asks, and whether in secret.

    Attributes:
        tls: What TLS is spoken with, or nothing at all; None when it was not asked for.
        plain: Whether TLS is not even tried.
        shown: The URL without its password.
    """

    host: str
    port: int
    user: str | None
    password: str
    database: str
    unix_socket: str | None
    tls: ssl.SSLContext | None
    plain: bool = False
    shown: str = ""

    @property
    def door(self) -> Door:
        """Return what messages about it need."""
        at = f"the socket {self.unix_socket}" if self.unix_socket else ""
        return Door("mysql", self.shown, self.user, self.password, self.host, self.port, self.database, at)


def unverified() -> ssl.SSLContext:
    """Return what encrypts for whoever answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def address_of(url: str) -> Address:
    """Take a URL apart.

    `mysql://user:password@host:port/database`, with the parameters `unix_socket=/path`, `ssl=true`
    (encrypted, and the server proves who it is to the authorities that this system trusts; `ssl=false`: never
    encrypted), `ssl_ca=/path` (to this authority), `ssl_check_hostname=false` (its name does not count),
    `ssl_verify=false` (encrypted for whoever answers), and `ssl_cert=/path` with `ssl_key=/path` (the client
    proves who it is).

    Raises:
        StoreURLError: It names no database, or has a parameter that is not known, or a wrong value of one.
        ConfigError: A file of TLS cannot be used.
    """
    parts = urlsplit(url)
    shown = without_password(url)
    database = unquote(parts.path.removeprefix("/"))
    if not database or "/" in database:
        raise StoreURLError(
            f"the store URL {shown!r} names no database; write {parts.scheme}://user:password@host/database"
        )
    given: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _KNOWN:
            raise StoreURLError(
                f"the store URL {shown!r} has the unknown parameter {name!r}{near_miss(name, _KNOWN)}; known "
                f"are {', '.join(_KNOWN)}"
            )
        given[name] = value
    if given.get("charset", "utf8mb4") != "utf8mb4":
        raise StoreURLError(
            f"the store URL {shown!r} asks for the charset {given['charset']!r}; Everloop needs utf8mb4: "
            "leave `charset` out"
        )
    return Address(
        host=parts.hostname or "localhost",
        port=_port(parts, shown),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password or ""),
        database=database,
        unix_socket=given.get("unix_socket"),
        tls=_tls(given, shown),
        plain=_flag(given, "ssl", shown) is False,
        shown=shown,
    )


def _port(parts: SplitResult, shown: str) -> int:
    try:
        return parts.port or 3306
    except ValueError as error:
        raise StoreURLError(f"the store URL {shown!r} has a wrong port ({error}); write host:3306") from error


def _tls(given: dict[str, str], shown: str) -> ssl.SSLContext | None:
    """Return the context that the parameters ask for; None when they ask for nothing."""
    wanted = _flag(given, "ssl", shown)
    check_name = _flag(given, "ssl_check_hostname", shown)
    verify = _flag(given, "ssl_verify", shown)
    asks = [name for name in _KNOWN if name.startswith("ssl_") and name in given]
    if wanted is False and asks:
        raise StoreURLError(f"the store URL {shown!r} says ssl=false beside {', '.join(asks)}; leave one out")
    if verify is False and (check_name or "ssl_ca" in given):
        beside = "ssl_ca" if "ssl_ca" in given else "ssl_check_hostname=true"
        raise StoreURLError(f"the store URL {shown!r} says ssl_verify=false beside {beside}; leave one out")
    if not (wanted or asks):
        return None
    try:
        context = unverified()
        if verify is not False:
            context = ssl.create_default_context(cafile=given.get("ssl_ca"))
            # The certificates that MySQL makes for itself do not pass what Python 3.13 adds.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            context.check_hostname = check_name is not False
        if "ssl_cert" in given:
            context.load_cert_chain(given["ssl_cert"], given.get("ssl_key"))
    except OSError as error:
        said = ", ".join(f"{name}={given[name]}" for name in asks)
        raise ConfigError(f"the files of TLS cannot be used ({said}): {error}") from error
    return context


def _flag(given: dict[str, str], name: str, shown: str) -> bool | None:
    value = given.get(name)
    if value is None:
        return None
    if value.lower() not in (*_TRUE, *_FALSE):
        raise StoreURLError(f"the store URL {shown!r} has {name}={value}; write {name}=true or {name}=false")
    return value.lower() in _TRUE
