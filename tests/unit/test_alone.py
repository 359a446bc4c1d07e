"""When a turn looks again that a bell has caused."""

from __future__ import annotations

import pytest

from everloop._core.calls import State
from everloop._core.records import Ended, Lane, Leased, Turn, TurnAnswer
from everloop.store.sql.verbs.alone import AGAIN, SELDOM, SOON, Alone

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
