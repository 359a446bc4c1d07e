"""What MySQL and MariaDB say seldom, said by a fake: lost bells, old servers, rights, odd errors."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pymysql
import pytest

from everloop._core.calls import State
from everloop._core.clock import ManualClock
from everloop._core.errors import ConfigError, StoreError, StoreUnavailable
from everloop._core.records import Ended
from everloop.store.sql import mysql as stores
from everloop.store.sql.dialect import statements
from everloop.store.sql.mysql import MysqlStore
from everloop.store.sql.mysql_address import address_of
from everloop.store.sql.runners import mysql_connection as connections
from everloop.store.sql.runners import mysql_listener
from everloop.store.sql.runners.mysql import SMALL, MysqlRunner, _explain_by_hand, _rows_by_hand
from everloop.store.sql.runners.mysql_bells import Bells
from everloop.store.sql.runners.mysql_connection import Interrupted, MysqlConnection, Rows, connect, explain
from everloop.store.sql.runners.mysql_listener import FEW, Foretold, MysqlListener, Prompt, hang_up_bell
from everloop.store.sql.runners.mysql_wire import Wire
from everloop.store.sql.runners.server import CannotOpen, Lost
from everloop.store.sql.verbs.scope import Scope
from everloop.store.sql.verbs.statement import Statement
from tests.helpers.waiting import until

URL = "mysql://shop:secret@h/shop"

#: What the server says of one round trip: the rows of each statement; an error follows the rows before it.
Answer = list[Any]


class Fake(MysqlConnection):
    """A connection whose server answers one round trip after the other, as a test says.

    Attributes:
        asked: The statements of each round trip.
    """

    def __init__(self, *answers: Answer, version: str = "10.11.6-MariaDB") -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []
        self.version = version
        self.closed = False
        self.answered = 0
        self._bells = "everloop bell shop "
        self.shows_early = False

    def run(self, sql: str, doing: str | Sequence[str], results: list[Rows] | None = None) -> list[Rows]:
        results = [] if results is None else results
        self.doing = list(doing)
        self.asked.append(sql.split(";\n"))
        self.answered = 0
        for rows in self.answers.pop(0) if self.answers else [[] for _ in self.asked[-1]]:
            if isinstance(rows, Exception):
                raise rows
            results.append(rows)
            self.answered += 1
        return results

    def literal(self, value: str) -> str:
        return f"'{value}'"

    def close(self) -> None:
        self.closed = True

    def interrupt(self) -> None:
        """Nothing waits."""


def scope(*rung: int, ready: bool = False) -> Scope:
    return Scope(ManualClock(), 7, rung=set(rung), ready=ready)


@pytest.fixture
def runner() -> Any:
    """A runner whose thread does nothing; its methods are called here."""
    made: Any = MysqlRunner.__new__(MysqlRunner)
    made._begun, made.trips, made._connection = True, 0, None
    made._bells = Bells(made._run)
    return made


# -- a commit stands, whatever becomes of its bells ---------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "said", "closed"),
    [
        ([[[], Lost("the line broke")]], "the line broke", True),
        ([[[], StoreError("odd")], [[]]], "", False),
        ([[[], StoreError("odd")], [StoreError("odd, too")]], "odd, too", False),
        ([[[], StoreError("odd")], [Lost("the line broke")]], "the line broke", True),
    ],
    ids=["lost", "looked for", "looked for in vain", "lost while it looked"],
)
def test_a_commit_stands_although_somebody_could_not_be_woken(
    runner: Any, caplog: pytest.LogCaptureFixture, answers: list[Answer], said: str, closed: bool
) -> None:
    caplog.set_level(logging.DEBUG, "everloop")
    connection = runner._connection = Fake(*answers)

    assert runner._commit(connection, [], scope(9), durable=True) == []

    assert len(connection.asked) == len(answers)
    assert connection.asked[0][0] == "COMMIT" and "KILL QUERY" in connection.asked[0][1]
    assert connection.closed is closed and (runner._connection is None) is closed
    told = [r.getMessage() for r in caplog.records]
    assert told == ([f"everloop: committed, but not everybody was woken: {said}"] if said else [])


@pytest.mark.parametrize("rings", [True, False])
def test_what_is_looked_at_behind_a_commit_is_looked_at_though_a_bell_did_not_ring(
    runner: Any, rings: bool
) -> None:
    template = statements("mysql")["settled_alone"]
    look = [(Statement("settled_alone", {}), template)]
    answers: list[Answer] = [[[], [], [(11,)]]] if rings else [[[], StoreError("odd")], [[]], [[(11,)]]]
    connection = runner._connection = Fake(*answers)

    assert runner._commit(connection, look, scope(9), durable=True, behind=1) == [[(11,)]]

    first = connection.asked[0]
    assert first[0] == "COMMIT" and "KILL QUERY" in first[1] and first[2] == "SELECT @ever_ended AS seq"
    assert connection.asked[1:] == ([] if rings else [connection.asked[1], ["SELECT @ever_ended AS seq"]])


# -- a transaction that goes as one block -------------------------------------------------------------------

TOLD = "SELECT EXISTS (SELECT 1 FROM ever_inbox WHERE session = 7) AS told"
KEPT = [
    (Statement(name, parameters), statements("mysql")[name])
    for name, parameters in (
        ("session_drop", {"session": 7}),
        ("seq_next", {}),
        ("sweep_put", {"app": "a", "now": 1}),
        ("inbox_told", {"session": 7}),
    )
]


@pytest.fixture
def whole(runner: Any) -> Any:
    """The same, at the beginning of a transaction, and it knows two workers."""
    runner._begun = False
    runner._bells._workers, runner._bells._look_at = {8, 9}, float("inf")
    return runner


@pytest.mark.parametrize("early", [True, False])
def test_a_block_answers_for_its_queries_and_once_for_all(whole: Any, early: bool) -> None:
    rung: Answer = [[(1,)]] if early else [[], []]
    connection = Fake([[(65_536,)], [], *rung, [(2,)]])
    connection.shows_early = early

    answered = whole._commit(connection, KEPT, scope(ready=True), durable=True, behind=1)

    assert answered == [None, [(65_536,)], None, [(2,)]]
    text = ";\n".join(connection.asked[0])
    assert text.startswith("BEGIN NOT ATOMIC START TRANSACTION;\n") and text.endswith(f";\n{TOLD}")
    block, behind = text.split("COMMIT; END")
    assert [part.count("KILL QUERY") for part in (block, behind)] == ([2, 0] if early else [0, 2])


def test_where_an_early_bell_has_failed_everybody_is_looked_for(whole: Any) -> None:
    connection = Fake([[(65_536,)], [], [(0,)], [(2,)]], [[(8, 1, None), (10, 1, 100)]], [[]])
    connection.shows_early = True
    answered = whole._commit(connection, KEPT, scope(ready=True), durable=True, behind=1)
    assert answered == [None, [(65_536,)], None, [(2,)]]
    assert connection.asked[2] == ["KILL QUERY 100"]
    assert whole._bells._workers == {10}


def test_an_error_within_a_block_says_what_it_was_about(whole: Any) -> None:
    connection = Fake([[(65_536,)], StoreError("odd")])
    with pytest.raises(StoreError, match="odd"):
        whole._commit(connection, KEPT, scope(9), durable=True, behind=1)
    assert connection.doing[:3] == ["session_drop, seq_next, sweep_put"] * 2 + ["bell"]


def test_who_is_told_something_is_woken_when_it_is_on_the_disk(whole: Any) -> None:
    connection = Fake()
    connection.shows_early = True
    whole._commit(connection, [], scope(5, 8, ready=True), durable=True)
    block, behind = ";\n".join(connection.asked[0]).split("COMMIT; END")
    assert ("shop 9'" in block, block.count("KILL QUERY")) == (True, 1)
    assert ("shop 5'" in behind, "shop 8'" in behind, behind.count("KILL QUERY")) == (True, True, 2)


def test_a_block_that_failed_did_not_happen(whole: Any) -> None:
    with pytest.raises(StoreError, match="odd"):
        whole._commit(Fake([[(65_536,)], StoreError("odd")]), KEPT, scope(9), durable=True, behind=1)


def test_a_block_stands_although_somebody_could_not_be_woken(whole: Any) -> None:
    connection = Fake([[(65_536,)], [], StoreError("odd")], [[]], [[(1,)]])
    answered = whole._commit(connection, KEPT, scope(9), durable=True, behind=1)
    assert answered == [None, [(65_536,)], None, [(1,)]]


@pytest.mark.parametrize(("version", "app"), [("8.0.36", "a"), ("10.11.6-MariaDB", "a" * SMALL)])
def test_there_is_no_block_on_mysql_nor_for_much(whole: Any, version: str, app: str) -> None:
    kept = [(Statement("sweep_put", {"app": app, "now": 1}), statements("mysql")["sweep_put"])]
    connection = Fake(version=version)
    whole._commit(connection, kept, scope(ready=True), durable=True)
    first, put, commit, *bells = connection.asked[0]
    assert (first, app in put, commit, len(bells)) == ("START TRANSACTION", True, "COMMIT", 2)


def test_a_commit_that_failed_did_not_happen(runner: Any) -> None:
    with pytest.raises(StoreError, match="odd"):
        runner._commit(Fake([StoreError("odd")]), [], scope(9), durable=True)


def test_a_line_that_breaks_while_workers_are_looked_for_leaves_the_commit(
    runner: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "everloop")
    connection = runner._connection = Fake([[], [(8, 1, 88)]], [Lost("the line broke")])

    assert runner._commit(connection, [], scope(ready=True), durable=True) == []

    assert connection.asked[1] == ["KILL QUERY 88"]
    assert connection.closed and "not everybody was woken: the line broke" in caplog.text


def test_a_bell_that_does_not_ring_keeps_nobody_else_from_being_woken(
    runner: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "everloop")
    listening = [[(8, 1, 88), (9, 1, 99), (10, 1, 100), (11, 0, None)]]
    connection = Fake(listening, [[], StoreError("unknown thread id: 99")], [[]])

    runner.wake(connection, scope(ready=True))

    assert connection.asked[1:] == [
        ["KILL QUERY 88", "KILL QUERY 99", "KILL QUERY 100"],
        ["KILL QUERY 100"],
    ]
    assert "a bell did not ring: unknown thread id: 99" in caplog.text


def test_where_nobody_is_to_be_woken_the_server_is_not_asked(runner: Any) -> None:
    connection = Fake()

    runner.wake(connection, scope(7))  # itself

    assert connection.asked == []


# -- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "end"),
    [
        (pymysql.err.OperationalError(1213, "Deadlock found"), StoreUnavailable, ": Deadlock found (1213)"),
        (pymysql.err.OperationalError(1021, "Disk full"), StoreUnavailable, ": Disk full (1021)"),
        (pymysql.err.OperationalError(1317, "interrupted"), StoreUnavailable, ": interrupted (1317)"),
        (pymysql.err.ProgrammingError(1146, "no such table"), StoreError, ": no such table (1146)"),
        (pymysql.err.InterfaceError("no line"), StoreError, ": no line"),
        (OSError(), StoreError, ": "),
    ],
)
def test_an_error_in_a_transaction_of_the_users_says_whether_it_may_pass(
    error: Exception, kind: type[StoreError], end: str
) -> None:
    told = _explain_by_hand(error, "add_calls")

    assert type(told) is kind
    assert str(told) == f"MySQL failed in your transaction (add_calls){end}"


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (
            pymysql.err.InterfaceError(0, ""),
            Lost,
            "the connection to MySQL is lost (COMMIT): the connection is",
        ),
        (pymysql.err.InterfaceError("closed"), Lost, "the connection to MySQL is lost (COMMIT): closed"),
        (
            pymysql.err.OperationalError(1114, "is full"),
            StoreUnavailable,
            "MySQL cannot go on now (COMMIT): is",
        ),
        (
            pymysql.err.OperationalError(1317, "no"),
            Interrupted,
            "MySQL was told to stop this query (COMMIT): no",
        ),
        (pymysql.err.DataError(1406, "too long"), StoreError, "MySQL failed (COMMIT): too long (1406)"),
        (pymysql.err.OperationalError(2026, "odd"), StoreError, "MySQL failed (COMMIT): odd (2026)"),
    ],
)
def test_an_error_is_told_by_what_may_be_done_about_it(
    error: pymysql.MySQLError, kind: type[StoreError], text: str
) -> None:
    told = explain(error, "COMMIT")

    assert type(told) is kind
    assert str(told).startswith(text)


def test_what_is_compared_by_its_bytes_comes_back_as_text_by_hand() -> None:
    template: Any = SimpleNamespace(sql="SELECT id", name="it")

    assert _rows_by_hand(template, [(b"a", 1), ("b", None)]) == [["a", 1], ["b", None]]


# -- connecting ---------------------------------------------------------------------------------------------


def dialled(monkeypatch: pytest.MonkeyPatch, url: str, *results: Any) -> tuple[Any, list[Any]]:
    """Dial, with these results; return the last, and the TLS of each try."""
    tried: list[Any] = []
    waiting = list(results)

    def log_in(address: object, patience: int, tls: object) -> Any:
        tried.append(tls)
        result = waiting.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(connections, "_log_in", log_in)
    return connections._dial(address_of(url), 60), tried


def test_a_server_that_speaks_no_tls_is_spoken_to_without_unless_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_tls = pymysql.err.OperationalError(2026, "no SSL support")

    made, tried = dialled(monkeypatch, URL, no_tls, "made")
    assert (made, [each is None for each in tried]) == ("made", [False, True])
    made, tried = dialled(monkeypatch, f"{URL}?ssl=false", "made")
    assert tried == [None]
    with pytest.raises(pymysql.err.OperationalError):
        dialled(monkeypatch, f"{URL}?ssl_verify=false", no_tls)


def test_an_error_that_is_not_about_tls_is_not_tried_without(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pymysql.err.OperationalError, match="1045"):
        dialled(monkeypatch, URL, pymysql.err.OperationalError(1045, "denied"))


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (
            pymysql.err.OperationalError(1045, "denied"),
            CannotOpen,
            "cannot connect to mysql://shop:***@h/shop?ssl_verify=false: denied (1045). ",
        ),
        (
            pymysql.err.OperationalError(2026, "odd"),
            ConfigError,
            "the store's URL asks for TLS, but the server",
        ),
        (
            RuntimeError("no cryptography"),
            StoreError,
            "cannot log in (no cryptography); ask for TLS with ?ssl",
        ),
    ],
)
def test_who_cannot_log_in_is_told_why(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], text: str
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(connections, "_log_in", refuse)

    with pytest.raises(kind) as caught:
        connect(address_of(f"{URL}?ssl_verify=false"))

    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("cipher", [[], [("Ssl_cipher", "")]])
def test_a_connection_that_is_not_encrypted_although_it_should_be_is_closed(
    monkeypatch: pytest.MonkeyPatch, cipher: list[Any]
) -> None:
    made: list[Fake] = []

    def fake(*_: object) -> Fake:
        made.append(Fake([[], [], [("10.11.6-MariaDB", 7, 1_000, "shop")], [], cipher]))
        return made[-1]

    monkeypatch.setattr(connections, "_dial", lambda *_: None)
    monkeypatch.setattr(connections, "MysqlConnection", fake)

    with pytest.raises(ConfigError, match="asks for TLS, but the server does not speak it"):
        connect(address_of(f"{URL}?ssl_verify=false"))
    assert made[0].closed


def test_a_line_through_a_socket_of_this_machine_needs_no_looking_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)  # as on other systems
    with closing(socket.socket(socket.AF_UNIX)) as local, closing(socket.socket()) as far:
        connections._keep_alive(local)
        connections._keep_alive(far)
        kept = far.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)

    assert kept == 20


def test_a_client_proves_who_it_is_with_a_certificate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded: list[tuple[str, str | None]] = []
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", lambda self, cert, key: loaded.append((cert, key)))

    address_of(f"{URL}?ssl_verify=false&ssl_cert=/c.pem&ssl_key=/k.pem")
    address_of(f"{URL}?ssl_verify=false&ssl_cert=/both.pem")

    assert loaded == [("/c.pem", "/k.pem"), ("/both.pem", None)]


# -- the line -----------------------------------------------------------------------------------------------


def test_a_line_that_is_gone_is_told_as_something_is_asked() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()
    wire = Wire(ours, 0)

    with pytest.raises(pymysql.err.OperationalError, match="the server has gone away"):
        wire.ask(b"SELECT 1")
    with pytest.raises(pymysql.err.OperationalError, match="the connection is closed"):
        wire.ask(b"SELECT 1")


def test_an_empty_packet_is_no_answer() -> None:
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        wire = Wire(ours, 0)
        wire.ask(b"SELECT 1")
        theirs.sendall(b"\0\0\0\x01")
        with pytest.raises(pymysql.err.InternalError, match="the server sent an empty packet"):
            list(wire.results())


# -- the store ----------------------------------------------------------------------------------------------


@pytest.fixture
def store() -> Any:
    return MysqlStore(URL)


def test_a_server_without_transactions_is_refused(store: Any) -> None:
    with pytest.raises(ConfigError, match="this server has no InnoDB, and Everloop needs its transactions"):
        store._check_server(Fake([[], [], []]))
    store._check_server(Fake([[(1,)], [], []]))


def test_a_database_that_somebody_else_migrates_for_long_is_told(store: Any) -> None:
    connection = Fake([[(0,)]])

    with pytest.raises(StoreUnavailable, match="somebody else has been migrating this database for 30 s"):
        store._migrate(connection)

    assert len(connection.asked) == 1, "nothing is changed, and no lock of others given back"


@pytest.mark.parametrize(
    ("version", "variables", "shown"),
    [
        (
            "10.11.6-MariaDB",
            [("log_bin", "ON"), ("sync_binlog", "0"), ("innodb_doublewrite", "ON")],
            {"innodb_flush_log_at_trx_commit": "", "sync_binlog": "0", "innodb_doublewrite": "ON"},
        ),
        ("9.1.0", [("log_bin", "OFF")], {"innodb_flush_log_at_trx_commit": "", "innodb_doublewrite": ""}),
    ],
)
def test_a_server_tells_its_version_its_clock_and_its_settings(
    store: Any, version: str, variables: list[tuple[str, str]], shown: dict[str, str]
) -> None:
    vitals = store._vitals(Fake([[(16_384,)], variables], [[(1_000_000,)]], version=version))

    assert vitals.version == f"{'MariaDB' if 'Maria' in version else 'MySQL'} {version}"
    assert vitals.size == 16_384
    assert vitals.ahead < -1_000_000 * 1_600_000_000, "that clock has hardly begun"
    assert {each.name: each.value for each in vitals.settings} == shown


def test_what_may_not_be_looked_at_blocks_nobody_and_any_other_error_is_raised(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    denied, odd = StoreError("denied"), StoreError("odd")
    denied.__cause__ = pymysql.err.OperationalError(1227, "denied")
    odd.__cause__ = pymysql.err.OperationalError(1064, "syntax")

    store._unblock(Fake([[]]), 0)
    store._unblock(Fake([[(1,)]], [denied]), 0)
    assert caplog.text == ""
    with pytest.raises(StoreError, match="odd"):
        store._unblock(Fake([[(1,)]], [odd]), 0)
    store._unblock(Fake([[(1,)]], [[(13, "shop")]]), 0)
    assert "the transaction of connection 13 (user shop) may hold their rows" in caplog.text
    assert not store._forbidden(None)


def test_rights_that_are_missing_are_told_with_what_grants_them(store: Any) -> None:
    assert store._grant() == "As an administrator: GRANT ALL ON shop.* TO 'shop'@'%'"
    assert MysqlStore("mysql:///shop")._grant().endswith("TO 'the_user'@'%'")


def test_a_schema_that_is_half_made_is_none(store: Any) -> None:
    assert store._schema(Fake([[]])) == 0
    assert store._schema(Fake([[(1,)]], [[]])) == 0
    assert store._schema(Fake([[(1,)]], [[("3",)]], [[]])) == 3
    assert stores.migrations("mysql")[0].number == 1


# -- who listens --------------------------------------------------------------------------------------------


class Sleeping(Fake):
    """A connection that is lost once it has no answers any more."""

    def run(self, sql: str, doing: str | Sequence[str], results: list[Rows] | None = None) -> list[Rows]:
        if not self.answers:
            raise Lost("the line broke")
        return super().run(sql, doing, results)

    def sleep(self, query: bytes, hear: Callable[[Rows], None]) -> bool:
        results: list[Rows] = []
        ended = False
        try:
            self.run(query.decode(), "listening", results)
        except Interrupted:
            ended = True
            if not results:
                raise
        hear(results[0])
        return ended


async def test_whoever_sleeps_again_rings_however_the_sleep_before_has_ended() -> None:
    rung: list[None] = []
    one = [(1,)]
    line = Sleeping([one], [one, [(0,)]], [one, Interrupted("killed")], [one, one])

    def make() -> Sleeping:
        if line.asked:
            raise StoreUnavailable("not now")
        return line

    ears = MysqlListener(make, 7, lambda: rung.append(None))
    await until(lambda: line.closed)
    ears.stop()

    assert len(rung) == 3, "once for the connection, and as each sleep but the first began"
    assert len(line.asked) == 4 and ears._connection is None


async def test_ends_that_are_few_are_told_at_once_and_a_turn_is_made_for_anything_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mysql_listener, "REST", 0.0)
    rung, after = list[None](), list[None]()
    told: list[Ended] = []
    one = [(1,)]
    end = ("ended", "call", "succeeded", "j7", None, 1)
    line = Sleeping(
        [one],
        [one, one],
        [[end], one],
        [[], one],  # nothing has come: it was for a call that is ready
        [[end, ("cancel", "call", "leased", None, None, 1)], one],
        [[end] * (FEW + 1), one],
        [StoreError("odd")],
        [one, one],
    )

    def make() -> Sleeping:
        if line.asked:
            raise StoreUnavailable("not now")
        return line

    may = iter([True, True, True, True, True, False])
    ears = MysqlListener(
        make,
        7,
        lambda: rung.append(None),
        Foretold(lambda: next(may), told.extend, lambda: after.append(None)),
    )
    await until(lambda: line.closed and len(rung) == 5)
    ears.stop()

    assert told == [Ended("call", State.SUCCEEDED, b"j7", None, 1)] and len(after) == 1
    assert len(rung) == 5, "for the connection, three times for what a turn has to tell, and after the error"
    assert [asked[0].startswith("SELECT 1;") for asked in line.asked[1:]] == [True] + [False] * 5 + [True]


async def test_who_waits_for_nothing_but_its_bell_is_rung_before_it_sleeps_again() -> None:
    events: list[str] = []
    idle = iter([True, False])
    one = [(1,)]
    ended = Interrupted("it was ended")
    line = Sleeping([one], [one, ended], [one, ended], [one])

    def make() -> Sleeping:
        if line.asked:
            raise StoreUnavailable("not now")
        return line

    def may() -> bool:
        events.append("woken")
        return next(idle)

    prompt = Prompt(may, lambda: events.append("a look follows"))
    ears = MysqlListener(make, 7, lambda: events.append("rung"), prompt=prompt)
    await until(lambda: line.closed and len(events) == 6)
    ears.stop()

    # For the connection; at once, and when it sleeps again; and as everybody is, once it sleeps again.
    assert [each for each in events if each != "woken"] == ["rung", "rung", "a look follows", "rung"]
    assert events.index("woken") < events.index("a look follows")


async def test_who_was_stopped_sleeps_no_more() -> None:
    one = [(1,)]
    line = Sleeping([one], [one, Interrupted("it was ended")], [one, one])
    made, listeners = threading.Event(), list[MysqlListener]()

    def may() -> bool:
        listeners[0]._stopped.set()
        return True

    def make() -> Sleeping:
        assert made.wait(20)
        return line

    ears = MysqlListener(make, 7, lambda: None, prompt=Prompt(may, lambda: None))
    listeners.append(ears)
    made.set()
    await until(lambda: line.closed)
    ears.stop()

    assert len(line.asked) == 2 and line.answers


async def test_a_sleep_that_fails_ends_the_connection() -> None:
    lines = [Sleeping([[(1,)]], [StoreError("odd")]), Sleeping([[(1,)]])]
    made: list[Sleeping] = []

    def make() -> Sleeping:
        if not lines:
            raise StoreUnavailable("not now")
        made.append(lines.pop(0))
        return made[-1]

    rung: list[None] = []
    ears = MysqlListener(make, 7, lambda: rung.append(None))
    await until(lambda: len(made) == 2 and made[1].closed)
    ears.stop()

    assert made[0].closed and len(rung) == 2


@pytest.mark.parametrize("kept", [False, True])
def test_a_bell_that_another_connection_holds_is_taken_from_it(kept: bool) -> None:
    connection = Fake([[(0,)]], [StoreError("unknown thread id")], [[(0 if kept else 1,)]])

    if kept:
        with pytest.raises(
            StoreUnavailable, match="another connection holds the lock 'everloop bell shop 7'"
        ):
            hang_up_bell(connection, 7)
    else:
        hang_up_bell(connection, 7)

    assert connection.asked[1] == ["KILL CONNECTION IS_USED_LOCK('everloop bell shop 7')"]
