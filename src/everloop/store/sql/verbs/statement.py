"""What a verb is: a generator that yields named statements and returns its answer.

A verb decides; a runner executes. The runner opens a transaction, executes what is yielded, sends the rows
of a query back, and commits when the verb returns. So a verb has no `await`, no connection, and no
database's name in it, and the same verb runs on a thread, on asyncio, and inside a user's own transaction.

What is far away is asked as seldom as possible. A statement that is no query has no reply, so a runner may
keep it until the next query, or the commit, and send them together. Queries that need nothing of each other
are yielded as a list, and go together too. `turn` takes three round trips at most, whatever its size.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Statement(NamedTuple):
    """A statement of the dialect's file, by name, with its parameters; a list or a dict travels as JSON."""

    name: str
    parameters: dict[str, Any]


#: Statements that may go in one round trip, in this order; replied to by the list of their rows.
Step = list[Statement]


class Last(list[Statement]):
    """A step that goes together with the commit, because nothing has to be decided after it.

    Where a verb goes on all the same, that is a transaction of its own: what it yields as the last step of
    the one before is then without effect. Only where `Scope.straight` says so.

    Args:
        statements: What is committed.
        behind: Queries that follow the commit and its bells in the same trip, outside of any transaction.

    Attributes:
        behind: How many these are; they are the last of the list.
    """

    def __init__(self, statements: Iterable[Statement], behind: Iterable[Statement] = ()) -> None:
        super().__init__(statements)
        before = len(self)
        self.extend(behind)
        self.behind = len(self) - before


Verb = Generator[Statement | Step | Last, Any, T]


def text(payload: bytes | None) -> str | None:
    """Turn payload bytes into the text column's form: as they are, or as hex behind a backslash.

    Everloop's own codec writes UTF-8; only a user's codec (compression, encryption) needs hex. No
    payload starts with a backslash: its first byte is a codec's letter. Databases end a text at a zero.
    """
    if payload is None:
        return None
    if b"\0" in payload:
        return "\\" + payload.hex()
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return "\\" + payload.hex()


def blob(column: str | None) -> bytes | None:
    """Turn a text column back into payload bytes."""
    if column is None:
        return None
    return bytes.fromhex(column[1:]) if column.startswith("\\") else column.encode()
