"""What a request has left of its block of numbers."""

from __future__ import annotations

from everloop.store.sql.verbs.numbers import BLOCK, FRESH, Numbers

NOW = 1_000 * FRESH


def test_a_block_is_used_up_number_by_number() -> None:
    numbers = Numbers()
    assert numbers.take(1, NOW) is None  # none was taken yet
    numbers.keep(3 * BLOCK, 2, NOW)
    assert [numbers.take(count, NOW) for count in (1, 3, 1)] == [3 * BLOCK + 2, 3 * BLOCK + 3, 3 * BLOCK + 6]


def test_no_more_is_given_than_there_is() -> None:
    numbers = Numbers()
    numbers.keep(BLOCK, BLOCK - 3, NOW)
    assert numbers.take(4, NOW) is None
    assert numbers.take(3, NOW) == 2 * BLOCK - 3
    assert numbers.take(1, NOW) is None


def test_a_block_is_left_after_a_second_and_by_a_clock_that_goes_back() -> None:
    numbers = Numbers()
    numbers.keep(BLOCK, 1, NOW)
    assert numbers.take(1, NOW + FRESH - 1) == BLOCK + 1
    assert numbers.take(1, NOW + FRESH) is None
    assert numbers.take(1, NOW - 1) is None


def test_what_is_older_than_what_others_have_is_not_given() -> None:
    numbers = Numbers()
    numbers.keep(BLOCK, 1, NOW)
    numbers.pass_by(2 * BLOCK)
    assert numbers.take(1, NOW) is None
    numbers.keep(BLOCK, 1, NOW)  # the answer of an earlier request comes late
    assert numbers.take(1, NOW) is None
    numbers.keep(3 * BLOCK, 1, NOW)
    assert numbers.take(1, NOW) == 3 * BLOCK + 1
