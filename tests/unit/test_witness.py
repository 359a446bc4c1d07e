"""Who may call other sessions late, and when."""

from __future__ import annotations

from everloop.engine.keeper import Witness


def seen(witness: Witness, *instants: float) -> None:
    for instant in instants:
        witness.answered(instant)


def test_whoever_has_just_come_judges_nobody() -> None:
    witness = Witness(1.5)
    assert not witness.may_judge(0.0)
    seen(witness, 0.0, 1.0, 2.0)
    assert not witness.may_judge(2.0)


def test_whoever_has_seen_the_store_answer_for_long_enough_judges() -> None:
    witness = Witness(1.5)
    seen(witness, 0.0, 1.0, 2.0, 3.0)
    assert witness.may_judge(3.0)
    assert witness.may_judge(4.5)
    assert not witness.may_judge(4.6)


def test_after_an_outage_the_others_have_time_to_come_back_first() -> None:
    witness = Witness(1.5)
    seen(witness, 0.0, 1.0, 2.0, 3.0)

    witness.failed()
    assert not witness.may_judge(4.0)
    seen(witness, 4.0, 5.0, 6.0)
    assert not witness.may_judge(6.9)
    seen(witness, 7.0)
    assert witness.may_judge(7.0)


def test_an_answer_that_came_late_is_an_outage_too() -> None:
    witness = Witness(1.5)
    seen(witness, 0.0, 1.0, 2.0, 3.0)

    seen(witness, 12.0)  # the store was held up, and so were the others
    assert not witness.may_judge(12.0)
    seen(witness, 13.0, 14.0, 15.0)
    assert witness.may_judge(15.0)


def test_a_clock_that_is_set_makes_everybody_late_at_once() -> None:
    witness = Witness(1.5)
    assert not witness.compared(1_000.0, 0.0)
    seen(witness, 0.0, 1.0, 2.0, 3.0)
    assert not witness.compared(1_004.9, 4.0)  # it is a little fast
    assert witness.may_judge(4.0)

    assert witness.compared(87_405.0, 5.0)
    assert not witness.may_judge(5.0)
    assert not witness.compared(87_406.0, 6.0)
    seen(witness, 6.0, 7.0, 8.0, 9.0)
    assert witness.may_judge(9.0)
    assert witness.compared(1_010.0, 10.0)  # and back


def test_a_process_that_was_stopped_itself_judges_nobody() -> None:
    witness = Witness(1.5)
    seen(witness, 0.0, 1.0, 2.0, 3.0)

    assert not witness.may_judge(60.0)
