"""When a turn looks for what was submitted lately, and when at all."""

from __future__ import annotations

import pytest

from everloop._core.records import Lane, Turn, TurnAnswer
from everloop.store.sql.verbs.lately import COMMIT, MOST, OLD, SLOW, TIMES, Lately

NOW = 1_000_000_000
LANES = (Lane("a", "default", "work"),)
TURN = Turn(lanes=LANES, room=10)


class Looks:
    """Looks of one session, each of which takes as long as it is told."""

    def __init__(self, disorder: int = 0) -> None:
        self.lately = Lately(disorder)
        self.now = NOW
        for number in (10, 20, 30):
            self.pass_by(disorder + COMMIT)
            self.look(0, [number])

    def pass_by(self, time: int) -> None:
        self.now += time

    def look(self, took: int, found: list[int] | None = None, turn: Turn = TURN) -> int | None:
        """Look; return behind which number."""
        since = self.lately.since(self.now, turn)
        self.lately.leased(found or [])
        self.lately.looked(turn, since, self.now, self.now + took, len(found or []))
        self.pass_by(took)
        return since

    def due(self) -> int:
        """Return in how many microseconds there must be another look."""
        due = self.lately.after(1, self.now, TurnAnswer()).next_due
        assert due is not None
        return due - self.now


def test_all_are_looked_at_as_long_as_that_is_quick() -> None:
    looks = Looks()
    assert [looks.look(SLOW - 1) for _ in range(5)] == [None] * 5


def test_a_slow_look_is_followed_by_others_until_nine_times_as_long_has_passed() -> None:
    looks = Looks()
    assert looks.look(SLOW) is None
    looks.pass_by(TIMES * SLOW - 1)
    assert looks.look(0) == 10
    assert looks.due() == 1
    looks.pass_by(1)
    assert looks.look(0) is None


def test_all_are_looked_at_once_a_second_at_least() -> None:
    looks = Looks()
    looks.look(MOST)
    looks.pass_by(MOST - 1)
    assert looks.look(0) is not None
    looks.pass_by(1)
    assert looks.look(0) is None


@pytest.mark.parametrize("disorder", [0, 1_000_000])
def test_a_look_begins_behind_what_was_leased_longer_ago_than_numbers_are_out_of_order(disorder: int) -> None:
    looks, step, back = Looks(disorder), 200_000, disorder + COMMIT
    leased: dict[int, int] = {}
    ages: list[int] = []
    for number in range(40, 400, 10):
        looks.pass_by(step)
        looks.look(SLOW, [number])
        leased[number] = looks.now
        since = looks.look(1)
        if since in leased:
            ages.append(looks.now - leased[since])
    assert back <= min(ages) < max(ages) <= 2 * (back + step + 2 * SLOW)


def test_where_nothing_was_leased_all_are_looked_at() -> None:
    lately = Lately()
    lately.looked(TURN, None, NOW, NOW + SLOW, 0)
    assert lately.since(NOW + SLOW, TURN) is None


def test_where_there_is_more_than_room_all_are_looked_at_next() -> None:
    looks = Looks()
    looks.look(SLOW, list(range(31, 41)))
    assert looks.look(SLOW) is None
    assert looks.look(0, list(range(41, 51))) is not None
    assert looks.due() < 0
    assert looks.look(0) is None


def test_what_has_looked_at_other_calls_counts_for_nothing() -> None:
    for other in (
        Turn(lanes=LANES, room=10, roots=False),
        Turn(lanes=(*LANES, Lane("a", "default", "b")), room=10),
    ):
        looks = Looks()
        looks.look(SLOW)
        assert looks.look(SLOW, turn=other) is None
        assert looks.look(0, turn=other) is not None
        assert looks.look(0) is None


def test_a_way_that_is_not_quicker_is_not_tried_again_for_a_while() -> None:
    looks = Looks()
    looks.look(4 * SLOW)
    assert looks.look(3 * SLOW) is not None
    assert looks.look(3 * SLOW + 1) is not None
    assert looks.due() < 0
    over = looks.now + MOST
    while looks.now + 4 * SLOW < over:
        assert looks.look(4 * SLOW) is None
    assert looks.look(4 * SLOW) is None
    assert looks.look(0) is not None


def test_a_way_that_takes_longer_than_a_look_at_all_is_left_though_it_has_committed_as_well() -> None:
    looks = Looks()
    assert not looks.lately.avoids
    looks.look(4 * SLOW)
    assert looks.lately.avoids
    looks.lately.looked_and_took(looks.now, 4 * SLOW)
    assert looks.lately.avoids
    looks.lately.looked_and_took(looks.now, 4 * SLOW + 1)
    assert not looks.lately.avoids
    assert looks.look(4 * SLOW) is None
    assert not looks.lately.avoids


def test_a_clock_that_was_set_back_makes_it_look_at_all() -> None:
    looks = Looks()
    looks.look(SLOW)
    looks.pass_by(-2 * MOST)
    assert looks.look(0) is None


def test_the_next_call_that_is_due_stays_the_next() -> None:
    looks = Looks()
    looks.look(SLOW)
    assert looks.lately.after(1, looks.now, TurnAnswer(next_due=looks.now + 1)).next_due == looks.now + 1
    assert (
        looks.lately.after(1, looks.now, TurnAnswer(next_due=looks.now + MOST)).next_due
        == looks.now + TIMES * SLOW
    )


def test_what_is_due_is_looked_for_from_before_the_last_look_at_all() -> None:
    looks = Looks(disorder=1)
    began = looks.now
    looks.look(SLOW)
    looks.pass_by(SLOW)
    assert looks.look(0) is not None
    assert looks.lately.due_from == began - 1 - COMMIT


def test_what_comes_back_is_looked_for_as_soon_as_half_of_the_time_is_over() -> None:
    looks = Looks()
    looks.look(SLOW)
    looks.pass_by(SLOW - 1)
    looks.lately.hurry()
    assert looks.due() == 1
    assert looks.look(0) is not None
    looks.pass_by(1)
    assert looks.look(0) is None


def test_where_more_is_due_than_was_made_ready_all_are_looked_at_next() -> None:
    looks = Looks()
    for due in (looks.now + 4 * SLOW, looks.now + SLOW):
        looks.look(SLOW)
        answer = TurnAnswer(next_due=due)
        assert looks.lately.after(None, looks.now, answer) is answer
        assert (looks.look(0) is None) == (due <= looks.now)


@pytest.mark.parametrize(("idle", "times"), [(COMMIT, 3), (OLD, 1)])
def test_what_was_leased_long_ago_is_no_place_to_begin(idle: int, times: int) -> None:
    looks = Looks()
    looks.look(SLOW)
    assert looks.look(0) == 10
    for _ in range(times):
        looks.pass_by(idle)
        assert looks.look(SLOW) is None
    assert looks.look(SLOW) is None


def test_a_turn_that_takes_no_calls_looks_at_all() -> None:
    looks = Looks()
    looks.look(SLOW)
    assert looks.lately.since(looks.now, Turn(lanes=LANES)) is None
    assert looks.lately.since(looks.now, TURN) is not None
