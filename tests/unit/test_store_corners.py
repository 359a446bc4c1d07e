"""What stores have in common and meet seldom: races, transactions of users that break, missing drivers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from everloop._core.calls import Event
from everloop._core.clock import ManualClock
from everloop._core.errors import MissingDependency, StoreError, StoreUnavailable
from everloop._core.records import Added, Lane, NewCall, Outcome, Parent
from everloop.store import url as urls
from everloop.store.memory import MemoryStore
from everloop.store.refusals import Door, refusal
from everloop.store.sql import sql_store
from everloop.store.sql.runners import sqlalchemy
from everloop.store.sql.runners.hand import drive_whole
from everloop.store.sql.runners.sqlite_entry import SQLITE
from everloop.store.sql.store import SqliteStore
from everloop.store.sql.verbs.adding import add
from everloop.store.sql.verbs.asking import wait
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement, Verb, blob, text
from everloop.store.sql.verbs.straight import settled_at_once
from everloop.store.transactions import UserTransaction
from everloop.store.url import store_from_url

LANE = Lane("a", "default", "work")
IDS = [f"{number:08x}-0000-7000-8000-000000000000" for number in range(10)]


def call(number: int = 0, **rest: Any) -> NewCall:
    return NewCall(id=IDS[number], lane=LANE, args=b"j", **rest)


def scope(session: int | None = 7) -> Scope:
    return Scope(ManualClock(), session, {LANE: 1}, {1: LANE})


def driven(verb: Verb[Any], replies: dict[str, list[Any]]) -> tuple[Any, list[Statement]]:
    """Drive a verb with these replies, by statement; return its answer, and what it yielded."""
    yielded: list[Statement] = []
    reply: Any = None
    try:
        while True:
            asked = verb.send(reply)
            step = asked if isinstance(asked, list) else [asked]
            yielded += step
            found = [replies.get(statement.name, []) for statement in step]
            reply = found if isinstance(asked, list) else found[0]
    except StopIteration as end:
        return end.value, yielded


def named(yielded: Sequence[Statement], name: str) -> list[dict[str, Any]]:
    return [statement.parameters for statement in yielded if statement.name == name]


# -- races: what was looked at has changed before it is written ---------------------------------------------


def test_who_waits_for_a_call_that_ends_meanwhile_is_told_at_once() -> None:
    around = scope()
    unknown, yielded = driven(
        wait(around, IDS[:3]),
        {
            "wait_match": [[IDS[0], 11, "ready"], [IDS[1], 12, "leased"]],
            "watch_ended": [[11], [12]],
            "keep_hold": [[11], [12]],
        },
    )

    assert unknown == [IDS[2]]
    assert named(yielded, "wait_add") == []
    assert [sorted(each["seqs"]) for each in named(yielded, "end_tell")] == [[11, 12]]
    assert around.rung == {7}


def existing(id: str, seq: int, state: str) -> list[Any]:
    return [id, seq, LANE.app, LANE.fn, state, "j"]


def test_who_adds_a_call_that_is_there_and_ends_meanwhile_is_told_at_once() -> None:
    around = scope()
    added, yielded = driven(
        add(around, [call(told=True), call(1, told=True, tags=("x",))]),
        {
            "add_existing": [existing(IDS[0], 11, "ready")],
            "seq_next": [[12]],
            "watch_ended": [[11]],
        },
    )

    assert added == [Added(IDS[0], "exists"), Added(IDS[1])]
    assert [each["seqs"] for each in named(yielded, "end_tell")] == [[11]]
    assert named(yielded, "wait_add") == [] and 7 in around.rung


def test_a_callback_of_a_call_that_ends_meanwhile_is_woken_at_once() -> None:
    around = scope()
    added, yielded = driven(
        add(around, [call(1, after=IDS[0])]),
        {"add_existing": [existing(IDS[0], 11, "leased")], "seq_next": [[12]], "watch_ended": [[11]]},
    )

    assert added == [Added(IDS[1])]
    assert named(yielded, "end_wake") == [{"seqs": [11], "now": around.now}]
    assert around.ready and around.scheduled and around.returned


def test_ends_that_go_straight_have_a_place_in_answers_only() -> None:
    without, ended = scope(), [Outcome(IDS[0], 1, Event.SUCCEED, b"j1")]

    assert settled_at_once(without, ended, [[0, 7]]) == [True]
    assert (without.told, without.rung) == (None, set())
    assert settled_at_once(without, ended, [[0, 8]]) == [True]
    assert without.rung == {8}


# -- payloads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [None, b"j{}", b"j\xc3\xa9", b"z\xff\xfe", b"z\0"])
def test_any_payload_comes_back_from_a_column_of_text(payload: bytes | None) -> None:
    column = text(payload)

    assert blob(column) == payload
    assert column is None or "\0" not in column


# -- in a transaction of the user's -------------------------------------------------------------------------


class Hand:
    """A connection of the user's on which every statement fails."""

    style = "named"
    failures = (OSError,)
    in_transaction = True

    def __init__(self) -> None:
        self.notes: dict[Any, Any] = {}
        self.asked: list[str] = []

    def execute(self, sql: str, parameters: Any = None) -> None:
        self.asked.append(sql)
        raise OSError(f"no line for {sql.split(maxsplit=1)[0]}")

    def at_a_stretch(self, work: Any) -> Any:
        return work(self)

    def transaction(self) -> UserTransaction:
        raise NotImplementedError


def test_when_the_connection_breaks_the_first_error_is_raised_and_the_second_noted_on_it() -> None:
    hand = Hand()

    def verb() -> Verb[None]:
        yield Statement("lane_all", {})

    with pytest.raises(StoreError, match="no line for SAVEPOINT") as caught:
        drive_whole(hand, verb(), SQLITE)

    assert hand.asked == ["SAVEPOINT everloop", "ROLLBACK TO SAVEPOINT everloop"]
    assert caught.value.__notes__ == ["rolling back what was added failed too: no line for ROLLBACK"]


@pytest.mark.parametrize("info", [None, "a driver's own", {}])
def test_a_connection_that_keeps_nothing_of_ours_tells_nobody(info: object) -> None:
    sqlalchemy._tell(SimpleNamespace(info=info), committed=True)

    assert info in (None, "a driver's own", {})


def test_a_transaction_that_has_ended_lets_go_of_its_connection() -> None:
    asked: list[bool] = []
    transaction = UserTransaction("sqlite:///shop.db", lambda: not asked.append(True), tells=True)
    assert transaction.is_open and asked == [True]

    transaction.end(committed=False)

    assert not transaction.is_open and asked == [True]


@pytest.mark.parametrize(("settled", "rings"), [(True, True), (False, False)])
async def test_settling_in_a_transaction_says_whom_to_wake_after_it(
    monkeypatch: pytest.MonkeyPatch, settled: bool, rings: bool
) -> None:
    async def drive(connection: object, verb: Verb[Any], folding: object) -> list[bool]:
        verb.close()
        return [settled]

    monkeypatch.setattr(sqlalchemy, "drive_on", drive)
    connection: Any = None

    after = await SqliteStore("s.db").settle_on(connection, Outcome(IDS[0], 1, Event.SUCCEED))

    assert (after is not None) is rings


async def test_what_another_transaction_holds_cannot_be_settled_in_one_of_the_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def drive(connection: object, verb: Verb[Any], folding: object) -> list[None]:
        verb.close()
        return [None]

    monkeypatch.setattr(sqlalchemy, "drive_on", drive)
    monkeypatch.setattr(sql_store, "PATIENCE", 0.05)
    connection: Any = None

    with pytest.raises(
        StoreUnavailable, match=f"another transaction that is still open holds the call {IDS[0]}"
    ):
        await SqliteStore("s.db").settle_on(connection, Outcome(IDS[0], 1, Event.SUCCEED))


@pytest.mark.parametrize("busy", [2, 1 << 30])
async def test_a_key_that_an_open_transaction_judges_is_waited_for_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, busy: int
) -> None:
    asked: list[int] = []

    async def run(work: Any) -> tuple[list[Added], None]:
        asked.append(1)
        if len(asked) <= busy:
            raise sql_store._KeyIsBusy("it is busy")
        return [Added(IDS[0])], None

    if busy > 2:
        clock = iter([0.0, sql_store.PATIENCE - 1, sql_store.PATIENCE + 1])
        monkeypatch.setattr(sql_store, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    store = SqliteStore("s.db")
    monkeypatch.setattr(store, "_borrow", lambda connection: SimpleNamespace(run=run))
    if busy > 2:
        with pytest.raises(StoreUnavailable, match="it is busy"):
            await store.add_on(None, [call()])
        assert len(asked) == 2
    else:
        assert (await store.add_on(None, [call()]))[0] == [Added(IDS[0])]
        assert len(asked) == 3


def test_a_busy_call_without_a_key_is_told_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    store, callback = SqliteStore("s.db"), call(1)
    store._lanes[LANE] = 1
    monkeypatch.setattr(sql_store, "add", _busy)

    with pytest.raises(
        sql_store._KeyIsBusy, match=r"work\(\) was not submitted: a .* with the same key that"
    ):
        driven(store._add_with_lanes(scope(None), [call(callbacks=(callback,))]), {})


def _busy(scope: Scope, calls: Sequence[NewCall]) -> Verb[list[Added]]:
    yield Statement("lane_all", {})
    return [Added(each.id, "busy") for each in calls]


async def test_a_store_that_is_no_database_is_held_up_by_no_connection() -> None:
    assert not await MemoryStore().is_blocked_by(object())


async def test_a_parent_that_another_took_over_can_cancel_nothing_in_memory() -> None:
    store = MemoryStore()
    await store.add(None, [call(), call(1)])

    answers = await store.cancel([IDS[0], IDS[2]], "enough", [Parent(IDS[1], 5), None])

    assert [(answer.asked, answer.lost) for answer in answers] == [(False, True), (False, False)]


# -- doors --------------------------------------------------------------------------------------------------


def door(at: str = "", password: str | None = None) -> Door:
    return Door("postgresql", "postgresql://shop@/shop", "shop", password, None, None, "shop", at)


def test_a_server_that_does_not_answer_is_looked_for_where_it_should_be() -> None:
    error = ConnectionRefusedError(111, "Connection refused")

    assert refusal(door(), error).text == (
        "cannot connect to postgresql://shop@/shop: Connection refused (111). Is the server running, and are "
        "host and port right? They are localhost:5432"
    )
    assert refusal(door("the socket /run/.s.PGSQL.5432"), error).text.endswith(
        "Is the server running on this machine, and is its socket right? It is the socket /run/.s.PGSQL.5432"
    )


@pytest.mark.parametrize(
    ("password", "said"), [(None, "no secret here"), ("no", "no secret here"), ("secret", "no *** here")]
)
def test_a_password_is_never_said_and_a_word_is_left_alone(password: str | None, said: str) -> None:
    assert said in refusal(door(password=password), OSError("no secret here")).text


@pytest.mark.parametrize(
    ("module", "url", "message"),
    [
        (
            "psycopg",
            "postgresql://h/d",
            'a store on PostgreSQL needs psycopg (.*): pip install "everloop.postgres."',
        ),
        ("pymysql", "mysql://h/d", 'a store on MySQL needs PyMySQL (.*): pip install "everloop.mysql."'),
    ],
)
def test_a_missing_driver_is_told_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, module: str, url: str, message: str
) -> None:
    for name in [name for name in sys.modules if name.startswith("everloop.store.sql.")]:
        if "postgresql" in name or "mysql" in name:
            monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(MissingDependency, match=message):
        store_from_url(url)


@pytest.mark.parametrize(
    ("name", "make"),
    [("everloop.store.sql.postgresql", urls._postgresql), ("everloop.store.sql.mysql", urls._mysql)],
)
def test_a_module_of_ours_that_is_missing_is_no_missing_driver(
    monkeypatch: pytest.MonkeyPatch, name: str, make: Any
) -> None:
    monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(ModuleNotFoundError, match=name):
        make("any://h/d")
