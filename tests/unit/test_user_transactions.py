"""What is known of the end of a user's transaction."""

from __future__ import annotations

import pytest

from everloop.store.transactions import UserTransaction


def test_it_is_open_as_long_as_it_seems_so_and_nobody_has_told_of_its_end() -> None:
    seems = [True]
    transaction = UserTransaction("sqlite:///shop.db", lambda: seems[0], tells=True)

    assert transaction.is_open
    seems[0] = False
    assert not transaction.is_open
    seems[0] = True
    transaction.end(committed=True)
    assert not transaction.is_open


@pytest.mark.parametrize("committed", [True, False])
def test_its_end_is_told_once_also_to_who_asks_later(committed: bool) -> None:
    told: list[tuple[str, bool]] = []
    transaction = UserTransaction("sqlite:///shop.db", lambda: True, tells=True)
    transaction.on_end(lambda end: told.append(("before", end)))
    transaction.end(committed=committed)
    transaction.end(committed=not committed)
    transaction.on_end(lambda end: told.append(("after", end)))

    assert told == [("before", committed), ("after", committed)]
    assert transaction.committed is committed


def test_one_who_fails_keeps_nobody_else_from_being_told(caplog: pytest.LogCaptureFixture) -> None:
    told: list[bool] = []

    def fail(_: bool) -> None:
        raise OSError("no bell")

    transaction = UserTransaction("sqlite:///shop.db", lambda: True, tells=True)
    transaction.on_end(fail)
    transaction.on_end(told.append)
    transaction.end(committed=True)

    assert told == [True]
    assert "what follows the end of a transaction on sqlite:///shop.db failed" in caplog.text
    assert "no bell" in caplog.text
