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

    def execute(self, sql: str, parameters: Any = None) -> tuple[Sequence[Sequence[Any]] | None, int]:
        """Execute one statement; return its rows, if it has any, and how many rows it changed."""
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
            reply = execute(hand, verb.send(reply), folding)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # the verb's answer
    finally:
        verb.close()


def execute(hand: Hand, statement: Statement, folding: Folding) -> Any:
    """Execute one named statement; return its rows, or how many rows it changed."""
    template = statements(folding.dialect)[statement.name]
    text = spelled(folding.sql_of(template), hand.style)
    parameters = text.bind(folding.parameters_of(statement))
    rows, changed = attempt(hand, text.sql, parameters, folding, statement.name)
    return folding.rows_of(template, rows or ()) if template.columns else changed


def attempt(
    hand: Hand, sql: str, parameters: Any, folding: Folding, doing: str
) -> tuple[Sequence[Sequence[Any]] | None, int]:
    """Execute what is spelled already.

    Raises:
        StoreError: The database failed; `doing` says in what.
    """
    try:
        return hand.execute(sql, parameters)
    except hand.failures as error:
        raise folding.explain(getattr(error, "orig", None) or error, doing) from error


def all_or_nothing(hand: Hand, work: Callable[[], T], folding: Folding) -> T:
    """Do `work` inside a savepoint: when it fails, the user may catch that and commit all the same."""
    attempt(hand, f"SAVEPOINT {_SAVEPOINT}", None, folding, "SAVEPOINT")
    try:
        answer = work()
    except BaseException as error:
        try:
            hand.execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
        except Exception as second:  # noqa: BLE001 - noted on the first, which is raised
            # The whole transaction is gone, or its connection is: nothing of it can be committed.
            error.add_note(f"rolling back what was added failed too: {second}")
        raise
    attempt(hand, f"RELEASE SAVEPOINT {_SAVEPOINT}", None, folding, "RELEASE")
    return answer
