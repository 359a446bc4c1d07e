"""When a turn looks again that a bell has caused, and what goes by itself."""

from __future__ import annotations

import pytest

from everloop._core.calls import Event, State
from everloop._core.records import Ended, Lane, Leased, NewCall, Outcome, Progress, Turn, TurnAnswer
from everloop.store.sql.verbs.alone import AGAIN, LONG, SELDOM, SEVERAL, SOON, Alone
from everloop.store.sql.verbs.lately import MOST

NOW = 1_000_000_000
SESSION = 7
LANES = (Lane("a", "default", "work"),)
LEASED = Leased("id", 1, LANES[0], b"", b"", 0, 0, 0, 0, None, 0, 0)
TOLD = Ended("id", State.SUCCEEDED, None, None, 1)


class Session:
    """A worker of ten slots, and its turns."""

    def __init__(self) -> None:
        self.alone = Alone()
        self.turn(NOW - SELDOM, rung=False)

    def turn(
        self, now: int, answer: TurnAnswer | None = None, *, rung: bool = True, room: int = 10
    ) -> int | None:
        """Make a turn; return in how many microseconds the next one is due."""
        if rung:
            self.alone.rung.add(SESSION)
        request = Turn(lanes=LANES, room=room)
        self.alone.comes_idle(SESSION, request)
        due = self.alone.after(SESSION, now, request, answer or TurnAnswer()).next_due
        return None if due is None else due - now


@pytest.mark.parametrize("room", [10, 3])
def test_a_bell_that_rang_for_nothing_is_followed_by_two_looks(room: int) -> None:
    session = Session()
    assert session.turn(NOW, room=room) == SOON
    assert session.turn(NOW + SOON, rung=False, room=room) == AGAIN - SOON
    assert session.turn(NOW + AGAIN, rung=False, room=room) is None


def test_the_second_look_is_put_off_and_not_left_out_where_many_find_nothing() -> None:
    session = Session()
    session.turn(NOW)
    later = NOW + AGAIN + 1
    assert session.turn(later) == SOON
    assert session.turn(later + SOON, rung=False) == NOW + AGAIN + SELDOM - later - SOON


def test_what_has_found_something_is_only_looked_at_once_more() -> None:
    assert Session().turn(NOW, TurnAnswer(leased=[LEASED]), room=3) == AGAIN
    assert Session().turn(NOW, TurnAnswer(ended=[TOLD])) == AGAIN


def test_a_call_that_an_idle_worker_has_leased_is_followed_by_a_turn_anyway() -> None:
    assert Session().turn(NOW, TurnAnswer(leased=[LEASED], next_due=NOW)) == 0
    assert Session().turn(NOW, TurnAnswer(leased=[LEASED])) is None


def test_who_could_take_nothing_does_not_look_again() -> None:
    assert Session().turn(NOW, room=0) is None
    assert Session().turn(NOW, TurnAnswer(leased=[LEASED]), room=1) is None


def test_what_is_due_before_stays_so() -> None:
    assert Session().turn(NOW, TurnAnswer(next_due=NOW + 1)) == 1
    assert Session().turn(NOW, TurnAnswer(next_due=NOW + SELDOM)) == SOON


def test_a_clock_that_was_set_back_keeps_nobody_from_looking() -> None:
    session = Session()
    session.turn(NOW)
    back = NOW - 100 * SELDOM
    assert session.turn(back, rung=False) is None
    assert session.turn(back) == SOON
    assert session.turn(back + SOON, rung=False) == SELDOM - SOON


def test_a_session_is_idle_that_has_all_its_room() -> None:
    session = Session()
    assert session.alone.idle
    session.turn(NOW, TurnAnswer(leased=[LEASED]))
    assert not session.alone.idle
    session.turn(NOW, rung=False, room=9)
    assert not session.alone.idle
    session.turn(NOW, rung=False)
    assert session.alone.idle


# -- several at once ----------------------------------------------------------------------------------------


def ends(*numbers: int, **more: object) -> Turn:
    outcomes = [Outcome(str(number), 1, Event.SUCCEED, b"j") for number in numbers]
    return Turn(outcomes=outcomes, **more)  # type: ignore[arg-type]


def remembering(*waiters: int | None) -> Alone:
    alone = Alone()
    for number, waiter in enumerate(waiters):
        alone.remember(str(number), 100 + number, waiter)
    return alone


def test_ends_are_said_together_where_all_were_taken_so_and_one_session_hears_of_them() -> None:
    assert remembering(7, 7, 8).ends(ends(1, 0)) == [(101, 7), (100, 7)]
    assert remembering(None, None).ends(ends(0, 1)) == [(100, None), (101, None)]
    assert remembering(7, 7, 8).ends(ends(1, 2)) == []
    assert remembering(7, 7).ends(ends(0, 9)) == []
    assert remembering(7, 7).ends(ends(0, 0)) == []
    assert remembering(7, 7).ends(ends()) == []
    assert remembering().ends(ends(0)) == []


def test_a_turn_that_does_anything_else_says_them_the_ordinary_way() -> None:
    call = NewCall(id="new", lane=LANES[0], args=b"j")
    assert remembering(7).ends(ends(0, adds=[call])) == []
    assert remembering(7).ends(ends(0, progress=[Progress("0", 1, 1, 2, "")])) == []
    assert remembering(7).ends(ends(0, holding=())) == []
    failed = Outcome("1", 1, Event.FAIL, error=b"j")
    assert remembering(7, 7).ends(Turn(outcomes=[*ends(0).outcomes, failed])) == []


def test_no_more_ends_are_said_together_than_are_taken_together() -> None:
    numbers = range(SEVERAL + 1)
    assert len(remembering(*(7 for _ in numbers)).ends(ends(*range(SEVERAL)))) == SEVERAL
    assert remembering(*(7 for _ in numbers)).ends(ends(*numbers)) == []


def test_a_lease_is_remembered_for_one_end() -> None:
    alone = remembering(7)
    assert alone.ends(ends(0)) == [(100, 7)]
    assert alone.ends(ends(0)) == []


def test_as_many_are_taken_as_came_the_last_time() -> None:
    alone = Alone()
    assert alone.most == 1
    for count, most in ((2, SEVERAL), (1, 1), (5, SEVERAL), (0, 1)):
        alone.took(count)
        assert alone.most == most


def test_after_a_look_that_took_long_one_turn_goes_the_ordinary_way_and_sees_why() -> None:
    alone = Alone()
    alone.looked(NOW, LONG - 1)
    assert not alone.slow
    alone.looked(NOW, LONG)
    alone.goes_on(NOW, looks=False)  # a turn that looks for nothing
    assert alone.slow
    alone.goes_on(NOW, looks=True)
    assert not alone.slow
    for passed, slow in ((0, False), (MOST - 1, False), (MOST, True), (-1, True)):
        alone.looked(NOW + passed, LONG)
        assert alone.slow is slow
