"""When a call is tried again, as numbers; and what is refused as an option's value."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop import Key, OptionError, Retry
from everloop._core.policy import check_delay, check_whole
from everloop._options import read_options
from everloop.engine.executor import Policy, RetryRule

retries = st.builds(
    Retry,
    st.integers(0, 50),
    delay=st.floats(0, 10_000),
    factor=st.floats(1, 100),
    cap=st.floats(0, 100_000),
    jitter=st.booleans(),
)
units = st.floats(0, 1, exclude_max=True)


def rule_of(retry: Retry) -> RetryRule:
    rule = read_options({"retries": retry}, "a test").policy.retry
    assert rule is not None
    return rule


# -- how long ---------------------------------------------------------------------------------------------


def test_the_wait_grows_by_the_factor_up_to_the_cap() -> None:
    retry = Retry(9, delay=0.5, factor=3, cap=30, jitter=False)

    assert [retry.wait(n) for n in range(1, 7)] == [0.5, 1.5, 4.5, 13.5, 30, 30]


def test_a_factor_of_one_waits_the_same_each_time() -> None:
    assert {Retry(9, delay=7, factor=1, jitter=False).wait(n) for n in range(1, 9)} == {7.0}


def test_by_default_it_is_one_second_doubled_up_to_five_minutes() -> None:
    longest = [Retry(99).wait(n, lambda: 1.0) for n in range(1, 12)]

    assert longest == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_timedeltas_count_as_their_seconds() -> None:
    retry = Retry(3, delay=timedelta(milliseconds=250), cap=timedelta(minutes=1), jitter=False)

    assert [retry.wait(n) for n in (1, 2, 20)] == [0.25, 0.5, 60]


def test_a_number_too_large_for_a_float_is_the_cap() -> None:
    assert Retry(99_999, factor=10, jitter=False).wait(99_999) == 300


def test_full_jitter_takes_a_uniform_part_of_the_whole_wait() -> None:
    retry = Retry(9, delay=2, factor=2, cap=100)

    assert [retry.wait(3, lambda u=u: u) for u in (0.0, 0.25, 0.5, 0.75)] == [0, 2, 4, 6]  # type: ignore[misc]  # a bound default

    rng = random.Random(7)
    waits = sorted(retry.wait(4, rng.random) for _ in range(10_000))
    assert min(waits) >= 0 and max(waits) < 16
    for tenth in range(1, 10):  # the deciles of a uniform distribution from 0 to 16
        assert waits[1_000 * tenth] == pytest.approx(1.6 * tenth, abs=0.4)


def test_chance_is_not_asked_without_jitter() -> None:
    def never() -> float:
        raise AssertionError("asked")

    assert Retry(1, jitter=False).wait(1, never) == 1


@given(retries, st.integers(1, 60), units)
def test_a_wait_is_never_negative_nor_over_the_cap_nor_over_what_it_is_a_part_of(
    retry: Retry, repeat: int, unit: float
) -> None:
    whole = dataclasses.replace(retry, jitter=False).wait(repeat)

    assert 0 <= retry.wait(repeat, lambda: unit) <= whole <= check_delay("cap", retry.cap) / 1e6


@given(retries, st.integers(1, 60), units)
def test_what_travels_with_a_call_waits_as_long(retry: Retry, repeat: int, unit: float) -> None:
    assert rule_of(retry).wait(repeat, lambda: unit) == retry.wait(repeat, lambda: unit)


# -- after what -------------------------------------------------------------------------------------------


class Ours(ValueError):
    pass


class Theirs(Exception):
    pass


@pytest.mark.parametrize(
    ("retry", "error", "again"),
    [
        (Retry(1), ValueError(), True),
        (Retry(1), SystemExit(), True),
        (Retry(0), ValueError(), False),
        (Retry(1, never=[ValueError]), ValueError(), False),
        (Retry(1, never=[ValueError]), Ours(), False),
        (Retry(1, never=[Ours]), ValueError(), True),
        (Retry(1, only=[ValueError]), Ours(), True),
        (Retry(1, only=[Ours]), ValueError(), False),
        (Retry(1, only=[Theirs, OSError]), ConnectionError(), True),
        (Retry(1, only=[ValueError], never=[Ours]), Ours(), False),
        (Retry(1, only=[ValueError], never=[Ours]), ValueError(), True),
        (Retry(1, never=[Exception]), KeyboardInterrupt(), True),
        (Retry(1, never=[BaseException]), KeyboardInterrupt(), False),
    ],
)
@pytest.mark.parametrize("as_rule", [False, True], ids=["Retry", "as it travels"])
def test_which_exceptions_are_tried_again(
    retry: Retry, error: BaseException, again: bool, as_rule: bool
) -> None:
    assert (rule_of(retry) if as_rule else retry).allows(error, 1) is again


def test_so_many_repeats_and_no_more() -> None:
    for rule in (Retry(3), rule_of(Retry(3))):
        assert [rule.allows(ValueError(), attempt) for attempt in range(1, 6)] == [True] * 3 + [False] * 2


# -- over each other --------------------------------------------------------------------------------------


def test_a_policy_over_another_keeps_what_it_says_and_takes_what_it_does_not() -> None:
    base = Policy(RetryRule(1), timeout=10, total_timeout=20)

    assert Policy().over(base) == base
    assert Policy(timeout=0).over(base) == Policy(RetryRule(1), 0, 20), (
        "None as a timeout is none, not unsaid"
    )
    assert Policy(RetryRule(0)).over(base) == Policy(RetryRule(0), 10, 20)
    assert Policy(RetryRule(2), 1, 2).over(base) == Policy(RetryRule(2), 1, 2)


# -- refused ----------------------------------------------------------------------------------------------

AnyRetry: Any = Retry  # as somebody calls them who has no type checker
AnyKey: Any = Key


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AnyRetry(-1), "`Retry(times)` is a whole number, 0 or more, not -1"),
        (lambda: AnyRetry(True), "`Retry(times)` is a whole number, 0 or more, not True"),
        (lambda: AnyRetry(1, delay=-1), "`Retry(delay=)` is -1 s; it may be 0 s to"),
        (
            lambda: AnyRetry(1, cap=10**10),
            "`Retry(cap=)` is 1e+10 s; it may be 0 s to 316224000 s (ten years)",
        ),
        (lambda: AnyRetry(1, factor=0.5), "`Retry(factor=)` is at least 1, not 0.5"),
        (lambda: AnyRetry(1, factor=float("nan")), "`Retry(factor=)` is at least 1, not nan"),
        (
            lambda: AnyRetry(1, never=["ValueError"]),
            "`Retry(never=)` lists exception classes, not 'ValueError'",
        ),
        (lambda: AnyRetry(1, only=[int]), "`Retry(only=)` lists exception classes, not <class 'int'>"),
        (lambda: AnyKey(""), "`Key(value)` is a text of 1 to 255 characters, not ''"),
        (lambda: AnyKey("k" * 256), "`Key(value)` is a text of 1 to 255 characters, not 'kkk"),
        (lambda: AnyKey("k", among="all"), "`Key(among=)` is 'live', 'done' or 'ever', not 'all'"),
        (lambda: AnyKey("k", on_conflict="skip"), "`Key(on_conflict=)` is 'join', 'raise' or 'replace', not"),
        (lambda: check_delay("delay", "1"), "`delay` is a number of seconds or a timedelta, not '1'"),
        (lambda: check_delay("delay", float("nan")), "`delay` is nan s; it may be 0 s to"),
        (lambda: check_whole("crashes", 1.0, 0, 9), "`crashes` is a whole number, from 0 to 9, not 1.0"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        make()
