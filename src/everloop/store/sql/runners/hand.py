"""Run a verb by hand: on a connection of the user's, inside the transaction that the user ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from everloop.store.sql.dialect import statements
from everloop.store.sql.spelling import Folding, spelled
from everloop.store.sql.verbs.statement import Statement, Verb
from everloop.store.transactions import UserTransaction

T = TypeVar("T")

_SAVEPOINT = "everloop"


class Hand(Protocol):
    """A user's connection while it is ours to use: it executes, and it neither commits nor rolls back.

    Attributes:
        notes: What is remembered of the driver's connection for as long as it lives.
        style: How its driver writes parameters.
        failures: What its driver raises when the database failed.
    """

    notes: dict[Any, Any]
    style: str
    failures: tuple[type[Exception], ...]

    @property
    def in_transaction(self) -> bool:
        """Whether the driver has a transaction open."""
        ...

    def execute(self, sql: str, parameters: Any = None) -> Sequence[Sequence[Any]] | None:
        """Execute one statement; return its rows, if it has any."""
        ...

    def at_a_stretch(self, work: Callable[[Hand], T]) -> T:
        """Do `work` in the open transaction, with as few waits between statements as the driver allows."""
        ...

    def transaction(self) -> UserTransaction:
        """Return the transaction that is open, and see to it that its end is told, where that can be."""
        ...


def drive(hand: Hand, verb: Verb[T], folding: Folding) -> T:
    """Drive `verb` inside the user's transaction.

    Raises:
        StoreError: The database failed; what the verb has written so far stays in the transaction.
    """
    reply: Any = None
    try:
        while True:
            asked = verb.send(reply)
            if isinstance(asked, list):
                reply = [execute(hand, statement, folding) for statement in asked]
            else:
                reply = execute(hand, asked, folding)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # the verb's answer
    finally:
        verb.close()


def execute(hand: Hand, statement: Statement, folding: Folding) -> Any:
    """Execute one named statement; return the rows of a query."""
    template = statements(folding.dialect)[statement.name]
    if not template.sql:
        return []
    values = folding.parameters_of(statement)
    rows: Sequence[Sequence[Any]] | None = None
    for part in folding.texts_of(template, statement):
        text = spelled(part, hand.style)
        rows = attempt(hand, text.sql, text.bind(values), folding, statement.name)
    return folding.rows_of(template, rows or ()) if template.columns else None


def attempt(
    hand: Hand, sql: str, parameters: Any, folding: Folding, doing: str
) -> Sequence[Sequence[Any]] | None:
    """Execute what is spelled already.

    Raises:
        StoreError: The database failed; `doing` says in what.
    """
    try:
        return hand.execute(sql, parameters)
    except hand.failures as error:
        raise folding.explain(getattr(error, "orig", None) or error, doing) from error


def drive_whole(hand: Hand, verb: Verb[T], folding: Folding) -> T:
    """Drive `verb` inside a savepoint: when it fails, the user may catch that and commit all the same.

    The transaction has begun. What is driven at a stretch may be done although its caller was cancelled; the
    savepoint ends out here, so that it is taken back all the same.

    Raises:
        StoreError: The database failed, and nothing of the verb is in the transaction.
    """

    def work(quick: Hand) -> T:
        attempt(quick, f"SAVEPOINT {_SAVEPOINT}", None, folding, "SAVEPOINT")
        return drive(quick, verb, folding)

    try:
        answer = hand.at_a_stretch(work)
    except BaseException as error:
        try:
            hand.execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
        except Exception as second:  # noqa: BLE001 - noted on the first, which is raised
            # The whole transaction is gone, or its connection is: nothing of it can be committed.
            error.add_note(f"rolling back what was added failed too: {second}")
        raise
    attempt(hand, f"RELEASE SAVEPOINT {_SAVEPOINT}", None, folding, "RELEASE")
    return answer
