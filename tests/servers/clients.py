"""Clients of the servers under test, as a user of the database."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import psycopg
import pymysql

from tests.helpers.servers.server import Server, address

#: What a driver raises when it is refused, or loses its connection.
Lost = (psycopg.OperationalError, pymysql.err.OperationalError, pymysql.err.InterfaceError)


def connect(url: str) -> AbstractContextManager[Any]:
    """Connect as the URL says; the connection is closed with the block, and commits nothing by itself."""
    if url.startswith("postgresql:"):
        return closing(psycopg.connect(url))
    parts = address(url)
    return closing(
        pymysql.connect(
            host=parts.hostname,
            port=parts.port or 0,
            user=parts.username,
            password=parts.password or "",
            database=parts.path.removeprefix("/"),
        )
    )


def run(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Execute and commit; return the rows of the last statement."""
    with connect(url) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        rows = list(cursor.fetchall()) if cursor.description else []
        connection.commit()
    return rows


def family(pid: int) -> list[int]:
    """Return a process and all that it has started."""
    children = _read(f"/proc/{pid}/task/{pid}/children").split()
    return [pid, *(one for child in children for one in family(int(child)))]


def shared_memory(server: Server) -> set[str]:
    """Return the files in /dev/shm, and the segments, that a server's processes hold."""
    held = set[str]()
    for pid in family(server.pid):
        for line in _read(f"/proc/{pid}/maps").splitlines():
            _, _, _, _, inode, *path = line.split()
            if path and path[0].startswith("/dev/shm/PostgreSQL."):
                held.add(path[0])
            elif path and path[0].startswith("/SYSV"):
                held.add(inode)
    return held


def _read(path: str) -> str:
    """Read about a process, which may have ended since it was listed."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def left(server_memory: set[str]) -> set[str]:
    """Return which of these are still there."""
    table = Path("/proc/sysvipc/shm").read_text(encoding="ascii").splitlines()[1:]
    segments = {line.split()[1] for line in table}
    return {one for one in server_memory if one in segments or (one.startswith("/") and Path(one).exists())}
