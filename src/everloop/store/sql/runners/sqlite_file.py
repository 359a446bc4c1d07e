"""An SQLite file as a store: where it may lie, how it is connected, its schema, its checkpoints."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from pathlib import Path

from everloop._core import forks
from everloop._core.errors import ConfigError, SchemaError, StoreUnavailable
from everloop._core.looks import Setting, Vitals
from everloop.store.sql.dialect import GOES_ON, migrations, newer, oldest_of, split, under
from everloop.store.sql.runners.sqlite import PATIENCE, begin_patiently, patiently

log = logging.getLogger("everloop")

#: JSON operators and `UPDATE ... FROM` are needed.
OLDEST = (3, 38, 0)
#: The first version without the WAL-reset bug (https://sqlite.org/wal.html#walresetbug).
SOUND = (3, 51, 3)
#: Bytes of write-ahead log at which it is copied back, and at which writers are held up for it.
COPY_AT, RESTART_AT = 4 << 20, 64 << 20
#: Bytes that the log gets before there is anything to write in it.
LAID_OUT = 3 << 20
_DONE = "INSERT OR REPLACE INTO ever_meta (name, value) VALUES ('schema', ?), (?, ?)"
_EFFECTIVE = os.access in os.supports_effective_ids
_NETWORK = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "fuse.sshfs",
        "fuse.glusterfs",
        "lustre",
        "gfs2",
    }
)


class SqliteFile:
    """The file behind a store."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check_place(self) -> None:
        """Refuse a place where SQLite cannot keep its word.

        Raises:
            ConfigError: The folder is missing, the file is a folder, or the file system is remote.
        """
        if sqlite3.sqlite_version_info < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise ConfigError(
                f"this Python links SQLite {sqlite3.sqlite_version}; Everloop needs {wanted} or newer"
            )
        if sqlite3.sqlite_version_info < SOUND:
            version = sqlite3.sqlite_version
            log.info("everloop: SQLite %s has the WAL-reset bug; one connection checkpoints", version)
        folder = self.path.parent
        if _is_closed(folder):
            raise ConfigError(
                f"the folder {str(folder)!r} of the store {str(self.path)!r} is closed to this user; let it "
                "in (chmod), or correct the URL"
            )
        if not folder.is_dir():
            raise ConfigError(
                f"the folder {str(folder)!r} of the store {str(self.path)!r} does not exist; "
                f"create it (mkdir -p {folder}) or correct the URL"
            )
        if self.path.is_dir():
            raise ConfigError(f"the store {str(self.path)!r} is a folder; give the path of a file in it")
        kind = file_system(folder)
        if kind in _NETWORK:
            raise ConfigError(
                f"the store {str(self.path)!r} lies on a network file system ({kind}), where SQLite's locks "
                "and its write-ahead log do not work; use a local disk"
            )
        if self.path.exists() and not writable(self.path):
            raise ConfigError(
                f"the store {str(self.path)!r} is read-only for this user; Everloop has to write it"
            )
        if not writable(folder):
            raise ConfigError(
                f"the folder {str(folder)!r} is read-only for this user; SQLite keeps files beside the "
                "store in it"
            )

    def connect(self) -> sqlite3.Connection:
        """Open a connection with the durable settings, and read them back.

        Raises:
            ConfigError: The file is no SQLite database, or the settings do not hold.
            StoreUnavailable: It cannot be opened now.
        """
        try:
            connection = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, timeout=0, cached_statements=256
            )
            try:
                mode, level = _set(connection)
            except BaseException:
                connection.close()
                raise
        except sqlite3.DatabaseError as error:
            if "not a database" in str(error):
                raise ConfigError(
                    f"the store {str(self.path)!r} is not an SQLite database; give another path, or move "
                    "that file away"
                ) from error
            raise StoreUnavailable(f"SQLite cannot open {str(self.path)!r}: {error}") from error
        if (mode, level) != ("wal", 2):
            connection.close()
            raise ConfigError(
                f"SQLite did not accept durable settings for {str(self.path)!r}: journal mode {mode!r} "
                f"(wanted 'wal'), synchronous {level} (wanted 2)"
            )
        return connection

    def migrate(self, connection: sqlite3.Connection) -> None:
        """Bring the schema to this version; several processes may try at once.

        Raises:
            SchemaError: The schema is newer than this version of Everloop.
        """
        # Even a look may meet a file that somebody else is making, or recovering.
        connection.execute(f"PRAGMA busy_timeout = {round(PATIENCE * 1000)}")
        try:
            self._migrate(connection)
        finally:
            connection.execute("PRAGMA busy_timeout = 0")

    def _migrate(self, connection: sqlite3.Connection) -> None:
        known = migrations("sqlite")
        if self._known_schema(connection) >= known[-1].number:
            return
        begin_patiently(connection, "BEGIN IMMEDIATE")
        try:
            found = self._known_schema(connection)
            for each in known:
                if each.number > found:
                    for statement in split(each.script):
                        connection.execute(statement)
            newest = known[-1].number
            if found < newest:  # nobody was quicker
                connection.execute(_DONE, (newest, under(newest), oldest_of(known)))
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    def _known_schema(self, connection: sqlite3.Connection) -> int:
        found, newest = self.schema(connection), migrations("sqlite")[-1].number
        if found > newest:
            oldest = self._meta(connection, under(found)) or found
            if oldest > newest:
                raise SchemaError(newer(f"the store {str(self.path)!r}", found, newest))
            log.info(GOES_ON, self.path, found, newest)
        return found

    def schema(self, connection: sqlite3.Connection) -> int:
        """Return the schema's number; 0 when there is none."""
        exists = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'ever_meta'").fetchone()
        if not exists:
            return 0
        return self._meta(connection, "schema")

    @staticmethod
    def _meta(connection: sqlite3.Connection, name: str) -> int:
        row = connection.execute("SELECT value FROM ever_meta WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def vitals(self, connection: sqlite3.Connection) -> Vitals:
        """Return what the file tells of itself."""
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        (level,) = connection.execute("PRAGMA synchronous").fetchone()
        files = [self.path, self.path.with_name(self.path.name + "-wal")]
        return Vitals(
            f"SQLite {sqlite3.sqlite_version}",
            sum(file.stat().st_size for file in files if file.exists()),
            0,
            (
                Setting("journal_mode", str(mode), "wal", "readers and writers wait for each other"),
                Setting("synchronous", str(level), "2", "a power cut loses calls that were acknowledged"),
            ),
        )

    def checkpoint(self, connection: sqlite3.Connection) -> bool:
        """Copy the write-ahead log back when it has grown; one process at a time does.

        SQLite before 3.51.3 can corrupt a file when two connections checkpoint at once, so every
        connection of Everloop has automatic checkpoints off and the one here holds a lock file.
        """
        size = self._log_size()
        if size < COPY_AT:
            return False
        descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with forks.closed_in_children(descriptor):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if size >= RESTART_AT:
                    # Under constant writes a passive copy never reaches the end: hold the writers up.
                    connection.execute("PRAGMA busy_timeout = 1000")
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                    connection.execute("PRAGMA busy_timeout = 0")
                    self.lay_out(connection)
        except BlockingIOError:
            return False  # another process is at it
        finally:
            os.close(descriptor)
        return True

    def lay_out(self, connection: sqlite3.Connection) -> None:
        """Give the write-ahead log some length before it is needed: what is written over is synced faster.

        A transaction that is larger than the cache spills into the log, and what was rolled back there is
        written over by the next ones. A commit takes about a quarter less time for it.
        """
        if self._log_size() >= LAID_OUT:
            return
        (cache,) = connection.execute("PRAGMA cache_size").fetchone()
        connection.execute("PRAGMA cache_size = 8")
        begin_patiently(connection, "BEGIN IMMEDIATE")
        try:
            connection.execute("CREATE TABLE ever_filler (filler BLOB)")
            for _ in range(LAID_OUT >> 16):
                connection.execute("INSERT INTO ever_filler VALUES (zeroblob(65536))")
        finally:
            if connection.in_transaction:  # a full disk ends it by itself
                connection.execute("ROLLBACK")
            connection.execute(f"PRAGMA cache_size = {cache}")

    def _log_size(self) -> int:
        log = self.path.with_name(self.path.name + "-wal")
        return log.stat().st_size if log.exists() else 0


def writable(path: Path) -> bool:
    """Whether this process may write there as the user that it acts for."""
    return os.access(path, os.W_OK, effective_ids=_EFFECTIVE)


def _is_closed(folder: Path) -> bool:
    """Whether it, or one above it, may not be looked into."""
    try:
        os.stat(f"{folder}/.")  # noqa: PTH116 - a Path drops the dot, which asks for what is in it
    except PermissionError:
        return True
    except OSError:
        return False  # it is not there, which is said apart
    return False


def file_system(folder: Path) -> str:
    """Return the type of the file system that holds `folder`, or an empty text when it cannot be told."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    place = str(folder.resolve())
    best, kind = "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split()[4].replace("\\040", " ")
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def _set(connection: sqlite3.Connection) -> tuple[str, int]:
    """Make a connection's settings; return the journal mode and the level that hold."""
    # The first statement that touches the file may meet another process that is creating it.
    connection.execute(f"PRAGMA busy_timeout = {round(PATIENCE * 1000)}")
    (mode,) = patiently(connection, "PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("PRAGMA busy_timeout = 0")
    (level,) = connection.execute("PRAGMA synchronous").fetchone()
    return mode, level
