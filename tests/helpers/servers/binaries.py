"""Where the programs of the database servers are, and of which version they are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

#: Debian keeps a server's programs out of the way of users.
FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/opt/homebrew/bin")
#: Debian's folders of PostgreSQL, one for each version.
POSTGRESQL_ROOT = Path("/usr/lib/postgresql")


class ServerMissing(Exception):
    """A database server is not installed; the message says what to install."""


@dataclass(frozen=True)
class Binaries:
    """A server's programs."""

    product: str
    server: Path
    #: What fills a fresh data folder.
    init: Path
    version: tuple[int, ...]

    @property
    def told(self) -> str:
        return f"{self.product} {'.'.join(map(str, self.version))} ({self.server})"


def postgresql() -> Binaries:
    """Find PostgreSQL: the newest there is.

    Raises:
        ServerMissing: There is none.
    """
    folders = [path / "bin" for path in POSTGRESQL_ROOT.glob("*")]
    found = [
        Binaries("PostgreSQL", server, init, _version(server, r"PostgreSQL\) (\d+(?:\.\d+)*)"))
        for server, init in _beside("postgres", "initdb", folders)
    ]
    usable = [binaries for binaries in found if binaries.version >= (13,)]
    if not usable:
        raise ServerMissing(_advice("PostgreSQL 13 or newer", "postgres and initdb", "postgresql"))
    return max(usable, key=lambda binaries: binaries.version)


def mariadb() -> Binaries:
    """Find MariaDB.

    Raises:
        ServerMissing: There is none; Oracle's MySQL does not count.
    """
    for name, init in (("mariadbd", "mariadb-install-db"), ("mysqld", "mysql_install_db")):
        for server, install in _beside(name, init, []):
            version = _version(server, r"Ver (\d+(?:\.\d+)*)-MariaDB")
            if version >= (10, 6):
                return Binaries("MariaDB", server, install, version)
    raise ServerMissing(
        _advice(
            "MariaDB 10.6 or newer",
            "mariadbd and mariadb-install-db",
            "mariadb-server-core mariadb-client-core",
        )
    )


def pgbouncer() -> Binaries:
    """Find PgBouncer; nothing fills a folder for it.

    Raises:
        ServerMissing: There is none.
    """
    found = shutil.which("pgbouncer", path=os.pathsep.join([*os.get_exec_path(), *FOLDERS]))
    if found is None:
        raise ServerMissing(_advice("PgBouncer", "pgbouncer", "pgbouncer"))
    return Binaries(
        "PgBouncer", Path(found), Path(found), _version(Path(found), r"PgBouncer (\d+(?:\.\d+)*)")
    )


def mysql() -> Binaries:
    """Find Oracle's MySQL, whose server fills its data folder itself.

    Raises:
        ServerMissing: There is none; MariaDB does not count.
    """
    for server, _ in _beside("mysqld", "mysqld", []):
        version = _version(server, r"Ver (\d+(?:\.\d+)*)(?!.*MariaDB)")
        if version >= (8, 0, 19):
            return Binaries("MySQL", server, server, version)
    raise ServerMissing(_advice("MySQL 8.0.19 or newer", "mysqld", "mysql-server-core"))


def mysql_family() -> Binaries:
    """Find MariaDB, or MySQL where there is no MariaDB: whichever `mysql://` leads to in the tests.

    Raises:
        ServerMissing: There is neither; with the advice for MariaDB.
    """
    try:
        return mariadb()
    except ServerMissing as missing:
        try:
            return mysql()
        except ServerMissing:
            raise missing from None


def _beside(server: str, init: str, folders: list[Path]) -> list[tuple[Path, Path]]:
    """Return the pairs of these two programs, each once; they may lie in two folders (sbin and bin)."""
    places = [*folders, *map(Path, os.get_exec_path()), *map(Path, FOLDERS)]
    inits = os.pathsep.join(map(str, places))
    found: dict[Path, Path] = {}
    for place in places:
        path, beside = (
            shutil.which(server, path=str(place)),
            shutil.which(init, path=f"{place}{os.pathsep}{inits}"),
        )
        if path and beside:
            # A link in /usr/local/bin and what it points to are one server.
            found.setdefault(Path(path).resolve(), Path(beside).resolve())
    return list(found.items())


def _version(server: Path, pattern: str) -> tuple[int, ...]:
    """Ask the program; an empty version is that of another program."""
    done = subprocess.run([server, "--version"], capture_output=True, text=True, check=False)
    match = re.search(pattern, done.stdout)
    return _numbers(match[1]) if match else ()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _advice(what: str, programs: str, packages: str) -> str:
    return (
        f"{what} is not installed: found no {programs} on PATH, in /usr/local/bin or where Debian puts them; "
        f"install it (Debian, Ubuntu: sudo apt-get install --no-install-recommends {packages}), "
        "or let `python tools/servers.py` do that as root; "
        "EVERLOOP_SKIP_SERVERS=1 leaves out the tests that need a server"
    )
