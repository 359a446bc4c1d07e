"""Enter a user's transaction on SQLite: see that it is one, on the store's file, and that it may write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from everloop._core.errors import StoreError, StoreUnavailable, UsageError
from everloop.store.sql.dialect import Template, migrations
from everloop.store.sql.runners.hand import Hand, attempt, execute
from everloop.store.sql.runners.sqlite import sql_of
from everloop.store.sql.spelling import Folding, parameters_of
from everloop.store.sql.verbs.statement import Statement

#: Noted of a connection: which store's file it is on.
_ENTERED = "everloop.entered"
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")
_decode = msgspec.json.Decoder(list[list[Any]]).decode


def enter(hand: Hand, path: Path) -> None:
    """Make the user's transaction a writer's on the store's file, or refuse it.

    A transaction that has not begun for the driver begins here, as it does at any first write: what the verb
    reads then stays true until it writes.

    Raises:
        UsageError: The file is another, its tables are missing, or nothing holds a transaction open.
        StoreUnavailable: Another connection is writing.
    """
    if hand.notes.get(_ENTERED) != path:
        _check_file(hand, path)
    _check_schema(_begin_write(hand), path)
    if not hand.in_transaction:
        raise UsageError(
            f"the connection to {str(path)!r} has no transaction open, because its driver commits each "
            "statement by itself (autocommit): begin one first, or take the connection from app.database()"
        )
    hand.notes[_ENTERED] = path


def _check_file(hand: Hand, path: Path) -> None:
    rows = attempt(hand, "PRAGMA database_list", None, SQLITE, "PRAGMA")
    files = [_text(file) for _, name, file in rows or () if _text(name) == "main"]
    if not _same(files, path):
        file = "".join(files) or "a database in memory"
        raise UsageError(
            f"`connection` is on {file!r}, and the calls of this app are on {str(path)!r}: a transaction "
            "reaches one database. Take the connection from app.database(), or submit after the commit"
        )
    # As on every connection of ours: only the store's keeper checkpoints this file (see SqliteFile).
    attempt(hand, "PRAGMA wal_autocheckpoint = 0", None, SQLITE, "PRAGMA")


def _begin_write(hand: Hand) -> list[list[Any]]:
    """Become a writer; return the schema, if there is one.

    No statement that reads may come before: a transaction that began with a read cannot wait for its turn to
    write, it fails when another writes just then.
    """
    try:
        rows: list[list[Any]] = execute(hand, Statement("begin_write", {}), SQLITE)
    except StoreError as error:
        if "no such table" in str(error):
            return []
        raise
    return rows


def _check_schema(rows: list[list[Any]], path: Path) -> None:
    found = rows[0][0] if rows else 0
    wanted = migrations("sqlite")[-1][0]
    if found != wanted:
        state = f"has schema {found}, and not {wanted}" if found else "has no tables of Everloop yet"
        raise UsageError(
            f"{str(path)!r} {state}, and this transaction keeps Everloop from making them: open the app "
            "before it (`async with app:`, app.run(...), or a worker)"
        )


def _same(files: list[str], path: Path) -> bool:
    try:
        return any(Path(file).samefile(path) for file in files if file)
    except FileNotFoundError:
        return False


def _text(value: str | bytes) -> str:
    return os.fsdecode(value)  # the user's connection may give texts as bytes


def _rows_of(template: Template, rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    if not template.sql.startswith("SELECT"):
        return [list(row) for row in rows]
    ((folded,),) = rows
    return _decode(folded)


def _explain(error: BaseException, doing: str) -> StoreError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(_BUSY):
        return StoreUnavailable(
            f"SQLite did not let your transaction write ({doing}): {error} ({name}). Another connection is "
            "writing, or has written since yours has read: take yours from app.database(), where they stand "
            "in line, or begin it with BEGIN IMMEDIATE"
        )
    failed = f"SQLite failed in your transaction ({doing}): {error}"
    return StoreError(f"{failed} ({name})" if name else failed)


SQLITE = Folding("sqlite", lambda template, _: (sql_of(template),), parameters_of, _rows_of, _explain)
