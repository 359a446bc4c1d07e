"""What every store on a server meets seldom, shown on one whose server is a list of answers."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from everloop._core.clock import ManualClock
from everloop._core.errors import ConfigError, SchemaError, StoreError, StoreUnavailable, UsageError
from everloop._core.looks import Vitals
from everloop._core.records import Lane
from everloop.store.refusals import Refusal
from everloop.store.sql import blocked, server_store
from everloop.store.sql.blocked import Blocked
from everloop.store.sql.dialect import Template, migrations, under
from everloop.store.sql.runners import listener as listeners
from everloop.store.sql.runners import server as servers
from everloop.store.sql.runners.borrowed import Borrowed
from everloop.store.sql.runners.listener import Listener
from everloop.store.sql.runners.server import CannotOpen, Collision, Lost, ServerRunner
from everloop.store.sql.server_store import ServerStore
from everloop.store.sql.spelling import Folding, parameters_of
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Last, Statement, Verb
from tests.helpers.waiting import until

LANE = Lane("a", "default", "work")
NEWEST = migrations("postgresql")[-1].number


class Server:
    """What the server says, step by step: an error is raised, anything else is agreed to.

    Attributes:
        answers: By "connect", "execute", "commit", "rollback", "prepare", "migrate"; each taken once.
        done: What was asked, in order.
    """

    def __init__(self, **answers: list[Exception | None]) -> None:
        self.answers = answers
        self.done: list[str] = []
        self.meta: dict[str, int] = {}

    def meet(self, what: str) -> None:
        self.done.append(what)
        answers = self.answers.get(what, [])
        if answers and (error := answers.pop(0)) is not None:
            raise error


class Runner(ServerRunner[Server]):
    dialect = "postgresql"
    _straight = True

    def __init__(self, server: Server) -> None:
        self.server = server
        super().__init__(self._make_one, "test", None)

    def _make_one(self) -> Server:
        self.server.meet("connect")
        return self.server

    def _disconnect(self, connection: Server) -> None:
        connection.done.append("disconnect")

    def _begin_transaction(self, connection: Server) -> None:
        connection.meet("begin")

    def _execute(self, connection: Server, kept: list[tuple[Statement, Template]]) -> list[Any]:
        connection.meet("execute")
        return [[[1]] for _ in kept]

    def _commit(
        self,
        connection: Server,
        kept: list[tuple[Statement, Template]],
        scope: Scope,
        *,
        durable: bool,
        behind: int = 0,
    ) -> list[Any]:
        connection.meet("commit")
        return [None for _ in kept]

    def wake(self, connection: Server, scope: Scope) -> None:
        connection.done.append(f"wake {sorted(scope.rung)} {scope.ready}")

    def _roll_back(self, connection: Server) -> None:
        connection.meet("rollback")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "PAUSE", 0.0)


@pytest.fixture
def runners() -> Iterator[Callable[[Server], Runner]]:
    made: list[Runner] = []

    def make(server: Server) -> Runner:
        made.append(Runner(server))
        return made[-1]

    yield make
    for runner in made:
        runner.close()


def scope() -> Scope:
    return Scope(ManualClock(), 7, {LANE: 1}, {1: LANE})


def plain() -> Verb[str]:
    yield Statement("lane_all", {})
    return "done"


def straight() -> Verb[str]:
    yield Last([Statement("lane_all", {})])
    yield Statement("lane_all", {})
    return "done"


async def ask(runner: Runner, verb: Callable[[], Verb[str]] = plain) -> str:
    return (await runner.run(lambda: (scope(), verb())))[1]


ONCE = ["begin", "execute", "commit"]


# -- what is begun anew -------------------------------------------------------------------------------------


async def test_a_connection_that_was_lost_before_the_commit_is_replaced_once(
    runners: Callable[[Server], Runner],
) -> None:
    server = Server(execute=[Lost("gone")])

    assert await ask(runners(server)) == "done"
    assert server.done == ["connect", "begin", "execute", "disconnect", "connect", *ONCE]


async def test_a_connection_that_is_lost_twice_is_told(runners: Callable[[Server], Runner]) -> None:
    server = Server(execute=[Lost("gone"), Lost("gone again")])
    runner = runners(server)

    with pytest.raises(Lost, match="gone again"):
        await ask(runner)
    assert await ask(runner) == "done"
    assert server.done.count("connect") == 3


@pytest.mark.parametrize("unsent", [False, True])
async def test_what_was_lost_with_a_commit_is_sent_again_only_when_that_was_not(
    runners: Callable[[Server], Runner], unsent: bool
) -> None:
    lost = Lost("gone")
    lost.unsent = unsent
    server = Server(commit=[lost])
    runner = runners(server)

    if unsent:
        assert await ask(runner) == "done"
    else:
        with pytest.raises(Lost) as caught:
            await ask(runner)
        assert not caught.value.undone
    assert server.done.count("commit") == 1 + unsent


async def test_a_transaction_that_met_another_is_begun_anew_and_not_for_ever(
    runners: Callable[[Server], Runner],
) -> None:
    server = Server(execute=[Collision("met one")] * servers.TRIES)
    runner = runners(server)

    with pytest.raises(Collision):
        await ask(runner)
    assert server.done.count("begin") == server.done.count("rollback") == servers.TRIES
    assert await ask(runner) == "done"


async def test_what_is_committed_in_part_is_not_begun_anew(runners: Callable[[Server], Runner]) -> None:
    server = Server(execute=[Collision("met one")])

    with pytest.raises(StoreUnavailable, match="met one") as caught:
        await ask(runners(server), straight)

    assert not isinstance(caught.value, Collision)
    assert server.done == ["connect", "begin", "commit", "begin", "execute", "rollback"]


async def test_what_committed_nothing_at_all_is_begun_anew(runners: Callable[[Server], Runner]) -> None:
    server = Server(execute=[Collision("met one")])
    runner = runners(server)

    def begin() -> tuple[Scope, Verb[str]]:
        around = scope()
        around.unchanged = True
        return around, straight()

    assert (await runner.run(begin))[1] == "done"
    assert server.done.count("begin") == 4


async def test_a_verb_that_has_committed_elsewhere_goes_on_where_it_was(
    runners: Callable[[Server], Runner],
) -> None:
    told: list[Any] = []

    def verb() -> Verb[str]:
        yield Last([Statement("lane_all", {})])
        told.append((yield Statement("lane_all", {})))
        told.append((yield [Statement("lane_all", {})]))
        return "done"

    server, around, half = Server(), scope(), verb()
    around.ready = True
    around.rung.add(9)
    next(half)
    step = half.send([[]])

    assert (await runners(server).go_on(around, half, step))[1] == "done"
    assert told == [[[1]], [[[1]]]]
    assert (around.ready, around.rung) == (False, set()), "who was to be woken by that commit is"


async def test_the_second_half_of_a_verb_is_not_begun_anew(runners: Callable[[Server], Runner]) -> None:
    half = plain()

    with pytest.raises(StoreUnavailable, match="the second half of a turn met another transaction, or lost"):
        await runners(Server(execute=[Collision("met one")])).go_on(scope(), half, next(half))


async def test_a_connection_that_cannot_roll_back_is_dropped(runners: Callable[[Server], Runner]) -> None:
    server = Server(execute=[StoreError("odd")], rollback=[StoreError("odder")])
    runner = runners(server)

    with pytest.raises(StoreError, match=r"^odd$"):
        await ask(runner)
    assert await ask(runner) == "done"
    assert server.done[3:6] == ["rollback", "disconnect", "connect"]


async def test_what_has_no_connection_has_none_to_drop(runners: Callable[[Server], Runner]) -> None:
    # A bell that found the connection lost has dropped it before the transaction says so.
    server = Server()
    runner = runners(server)

    def work(connection: Server) -> str:
        if server.done.count("connect") == 1:
            runner._forget()
            raise Lost("gone")
        return "done"

    assert await runner.call_anew(work) == "done"
    assert server.done == ["connect", "disconnect", "connect"]


# -- the store ----------------------------------------------------------------------------------------------


class Store(ServerStore[Server]):
    dialect = "postgresql"
    _dialects = ("postgresql",)
    _folding = Folding(
        "postgresql",
        lambda template, _: (template.sql,),
        parameters_of,
        lambda _, rows: [list(row) for row in rows],
        lambda error, doing: (
            StoreUnavailable("not now") if "not now" in str(error) else StoreError(str(error))
        ),
    )

    def __init__(self, server: Server) -> None:
        super().__init__("postgresql://shop:secret@h/shop", clock=ManualClock())
        self.server = server

    def _thread(self, name: str) -> Runner:
        return Runner(self.server)

    def _listener(self, session: int, wake: Callable[[], None]) -> Listener:
        raise NotImplementedError

    def _check_server(self, connection: Server) -> None:
        connection.meet("check")

    def _schema(self, connection: Server) -> int:
        return self._read_meta(connection, "schema")

    def _migrate(self, connection: Server) -> None:
        connection.meet("migrate")
        connection.meta |= {"schema": NEWEST, "identity": 77}

    def _vitals(self, connection: Server) -> Vitals:
        return Vitals("test", 1, 0, ())

    def _forbidden(self, error: BaseException | None) -> bool:
        return isinstance(error, PermissionError)

    def _grant(self) -> str:
        return "GRANT IT"

    def _unblock(self, connection: Server, before: int) -> None:
        connection.done.append("unblock")

    def _read_meta(self, connection: Server, name: str) -> int:
        return connection.meta.get(name, 0)

    def _ask_time(self, connection: Server) -> int:
        raise NotImplementedError


def refused(lasting: bool) -> CannotOpen:
    return CannotOpen(Refusal("nobody is let in", lasting=lasting))


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


async def test_a_store_makes_its_schema_where_there_is_none_and_opens_once() -> None:
    server = Server()
    store = Store(server)

    await store.open()
    await store.open()
    assert (await store.vitals()).version == "test"
    await store.close()

    assert server.done.count("migrate") == 1
    assert store._identity == 77


@pytest.mark.parametrize(("lasting", "kind"), [(True, ConfigError), (False, StoreUnavailable)])
async def test_a_server_that_lets_nobody_in_is_a_mistake_when_that_lasts(
    lasting: bool, kind: type[Exception]
) -> None:
    store = Store(Server(connect=[refused(lasting)]))

    with pytest.raises(kind, match="nobody is let in"):
        await store.open()

    with pytest.raises(RuntimeError, match=r"the store is not open: `await store\.open\(\)` first"):
        await store.renew(1, 1)
    await store.open()
    await store.close()


async def test_a_user_who_may_make_no_tables_is_told_what_lets_him() -> None:
    store = Store(Server(migrate=[caused(StoreError("denied"), PermissionError()), StoreError("odd")]))

    with pytest.raises(ConfigError) as caught:
        await store.open()
    assert str(caught.value) == (
        "the user of postgresql://shop:***@h/shop may not make Everloop's tables there: denied. GRANT IT; or "
        "let one who may run `everloop migrate URL` (with --sql it prints what it would do)"
    )
    with pytest.raises(StoreError, match=r"^odd$"):
        await store.migrate()


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"schema": NEWEST + 1}, f"the store has schema {NEWEST + 1}, but this version of Everloop knows "),
        (
            {"schema": NEWEST + 1, under(NEWEST + 1): NEWEST + 1},
            f"the store has schema {NEWEST + 1}, but this version of Everloop knows ",
        ),
        ({"schema": NEWEST + 1, under(NEWEST + 1): NEWEST}, ""),
        (
            {"schema": NEWEST - 1},
            (
                f"the store has schema {NEWEST - 1}, and this version of Everloop needs {NEWEST}; workers of "
                "the release before go on with it. Bring it up to date: everloop migrate "
                "postgresql://shop:***@h/shop"
            ),
        ),
    ],
)
async def test_a_schema_that_is_not_this_versions_is_refused_unless_it_allows_it(
    meta: dict[str, int], message: str
) -> None:
    server = Server()
    server.meta = dict(meta)
    store = Store(server)

    if message:
        with pytest.raises(SchemaError) as caught:
            await store.open()
        assert str(caught.value).startswith(message)
    else:
        await store.open()
        await store.close()
    assert "migrate" not in server.done
    found, missing = await store.migrations()
    assert (found, len(missing)) == (meta["schema"], max(0, NEWEST - meta["schema"]))


async def test_who_was_told_by_a_commit_of_the_users_is_woken_by_the_store_that_is_open() -> None:
    server, told = Server(), scope()
    store = Store(server)
    told.rung.add(9)
    store._ring(told)
    await store.open()
    store._ring(scope())
    store._ring(told)
    await store.close()
    store._ring(told)

    assert [each for each in server.done if each.startswith("wake")] == ["wake [9] False"]


async def test_no_connection_of_the_users_holds_up_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(work: Any) -> None:
        raise NotImplementedError

    assert not await Store(Server()).is_blocked_by(Borrowed("postgresql", run))
    with pytest.raises(UsageError, match="`connection` is on a sqlite database"):
        await Store(Server()).is_blocked_by(Borrowed("sqlite", run))


async def test_who_reaps_looks_for_what_blocks_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    store = Store(server)

    async def write(make: object, session: int | None = None) -> int:
        return 0

    monkeypatch.setattr(store, "_write", write)
    await store.open()
    for overdue in (False, True, True):
        assert await store.reap(overdue=overdue) == 0
    await store.tend()  # a clock that is not the server's is not set
    await store.close()

    assert server.done.count("unblock") == 1


class Hand:
    """A connection of the user's; answers with rows, or raises."""

    style = "pyformat"
    failures = (OSError,)

    def __init__(self, answer: Any, *, in_transaction: bool = True) -> None:
        self.notes: dict[Any, Any] = {}
        self.in_transaction = in_transaction
        self.asked: list[str] = []
        self._answer = answer

    def execute(self, sql: str, parameters: Any = None) -> Any:
        self.asked.append(sql)
        if "SAVEPOINT" in sql:
            return None
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def at_a_stretch(self, work: Any) -> Any:
        return work(self)


@pytest.mark.parametrize(
    ("hand", "kind", "message"),
    [
        (
            Hand([], in_transaction=False),
            UsageError,
            "has no transaction open, because its driver commits each",
        ),
        (
            Hand(OSError("no such table")),
            UsageError,
            "in which Everloop's tables could not be read (no such table)",
        ),
        (Hand(OSError("not now")), StoreUnavailable, "not now"),
        (
            Hand([(78,)]),
            UsageError,
            "`connection` is on another database than the calls of this app, which are",
        ),
    ],
)
async def test_a_transaction_that_the_calls_cannot_be_in_is_refused(
    hand: Any, kind: type[Exception], message: str
) -> None:
    store = Store(Server())
    store._identity = 77

    with pytest.raises(kind) as caught:
        store._enter(hand)

    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert hand.notes == {}


async def test_a_connection_is_asked_once_which_database_it_is_on() -> None:
    store, hand = Store(Server()), Hand([(77,)])
    store._identity = 77
    given: Any = hand

    store._enter(given)
    asked = len(hand.asked)
    store._enter(given)

    assert asked and len(hand.asked) == asked
    assert hand.notes == {server_store._ENTERED: 77}


# -- who holds rows of the dead -----------------------------------------------------------------------------


def test_what_blocks_is_looked_for_now_and_then_and_longer_after_a_death(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    looks = Blocked()

    assert looks.may_look(reaped=False) and not looks.somebody_died
    now[0] += blocked.LOOK_S / 2
    assert not looks.may_look(reaped=True) and looks.somebody_died
    now[0] += blocked.LOOK_S
    assert looks.may_look(reaped=False) and looks.somebody_died
    now[0] += blocked.AFTER_S
    assert not looks.somebody_died


def test_who_holds_rows_of_the_dead_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    looks = Blocked()

    for holders in ({7: "user a"}, {7: "user a", 8: "user b"}, {}, {7: "user a"}):
        looks.tell(holders, "may hold", "KILL {}")
    blocked.ended(9)

    assert [f"{r.args[0]}" for r in caplog.records if isinstance(r.args, tuple) and len(r.args) == 4] == list(
        "787"
    )
    assert (
        "the transaction of connection 7 (user a) may hold their rows. Commit it or roll it back; to end"
        in (caplog.text)
    )
    assert "its connection 9 was ended" in caplog.text


# -- who listens --------------------------------------------------------------------------------------------


class Ears(Listener):
    """Listens to an event; connects as a test says."""

    def __init__(self, wake: Callable[[], None], *connecting: Exception) -> None:
        self.word = threading.Event()
        self.connecting = list(connecting)
        self.connected = 0
        super().__init__(wake)

    def _interrupt(self) -> None:
        self.word.set()

    def _connect(self) -> None:
        self.connected += 1
        if self.connecting:
            raise self.connecting.pop(0)

    def _listen(self) -> None:
        self.word.wait(20)
        self.word.clear()
        if not self._stopped.is_set():
            raise StoreUnavailable("the line broke")

    def _disconnect(self) -> None:
        """There is no connection."""


async def test_a_listener_comes_back_and_rings_because_words_may_have_been_missed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listeners, "PAUSE", 0.001)
    caplog.set_level(logging.DEBUG, "everloop")
    rung: list[None] = []

    ears = Ears(lambda: rung.append(None), StoreUnavailable("not now"))
    await until(lambda: len(rung) == 1)
    ears.word.set()
    await until(lambda: len(rung) == 2)
    ears.stop()
    ears.stop()

    assert ears.connected == 3
    assert "nothing rings until the store is back: the line broke" in caplog.text


def test_a_listener_whose_loop_is_closed_ends() -> None:
    ears: list[Ears] = []
    held = threading.Event()

    class Late(Ears):
        def _connect(self) -> None:
            held.wait(20)

    async def listen() -> None:
        ears.append(Late(lambda: None))

    asyncio.run(listen())
    held.set()
    ears[0].word.set()
    ears[0]._thread.join(20)

    assert ears[0]._stopped.is_set() and not ears[0]._thread.is_alive()
