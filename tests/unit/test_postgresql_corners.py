"""What PostgreSQL says seldom, said by a fake: poolers, old servers, rights, odd answers of its library."""

from __future__ import annotations

import logging
import select
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import errors, pq

from everloop._core.clock import ManualClock
from everloop._core.errors import ConfigError, StoreError, StoreUnavailable, UsageError
from everloop.store.sql.postgresql import PostgresStore
from everloop.store.sql.runners import postgresql as runners
from everloop.store.sql.runners import postgresql_connection as connections
from everloop.store.sql.runners import postgresql_listener as listeners
from everloop.store.sql.runners.postgresql import PostgresRunner, _explain_by_hand
from everloop.store.sql.runners.postgresql_connection import Connection, connector
from everloop.store.sql.runners.postgresql_listener import PostgresListener
from everloop.store.sql.runners.postgresql_pipe import Pipe
from everloop.store.sql.runners.server import CannotOpen, Lost
from everloop.store.sql.verbs.scope import Scope
from tests.helpers.waiting import until

URL = "postgresql://shop:secret@h:5432/shop"


class Fake:
    """A connection whose server answers by the beginning of the statement."""

    def __init__(self, answers: dict[str, Any], *, backend: int = 7, version: int = 150_004) -> None:
        self.info = SimpleNamespace(backend_pid=backend, server_version=version, host="h", port=5432)
        self.opening: tuple[str, ...] = ("BEGIN",)
        self.pooled = False
        self.prepare_threshold: int | None = 5
        self.closed = False
        self.asked: list[str] = []
        self._answers = answers

    def execute(self, sql: str | bytes, parameters: Any = None) -> Any:
        text = (sql.decode() if isinstance(sql, bytes) else sql).strip()
        self.asked.append(text)
        rows = next((rows for start, rows in self._answers.items() if text.startswith(start)), [])
        if isinstance(rows, Exception):
            raise rows
        return SimpleNamespace(fetchall=lambda: rows, fetchone=lambda: rows[0] if rows else None)

    def close(self) -> None:
        self.closed = True


def opened(
    monkeypatch: pytest.MonkeyPatch, url: str, *results: Fake | Exception, by_index: bool = False
) -> tuple[Any, list[dict[str, Any]]]:
    """Connect, with these results; return the connection, and with what each was asked for."""
    given: list[dict[str, Any]] = []
    waiting = list(results)

    def connect(**how: Any) -> Fake:
        given.append(how)
        result = waiting.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(Connection, "connect", connect)
    return connector(url, by_index=by_index)(), given


def looked(number: int = 7, commits: str = "on", who: str = "default") -> dict[str, Any]:
    return {"SELECT pg_backend_pid()": [(number, commits)], "SELECT source": [(who,)]}


# -- connecting ---------------------------------------------------------------------------------------------


def test_a_connection_to_the_server_itself_needs_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    made, (given,) = opened(monkeypatch, f"{URL}?application_name=till", Fake(looked()), by_index=True)

    assert (made.pooled, made.opening, len(made.asked)) == (False, ("BEGIN",), 1)
    assert given["application_name"] == "everloop store: till"
    assert "lock_timeout=5s" in given["options"] and "-c enable_seqscan=off" in given["options"]


@pytest.mark.parametrize(("who", "set_on"), [("database", True), ("session", False)])
def test_a_store_commits_durably_where_others_need_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, who: str, set_on: bool
) -> None:
    caplog.set_level(logging.INFO, "everloop")
    made, _ = opened(monkeypatch, URL, Fake(looked(commits="off", who=who)))

    assert ("SET synchronous_commit = on" in made.asked) is set_on
    assert (
        "synchronous_commit is off for this role or database on postgresql://shop:***@h" in caplog.text
    ) is (set_on)


@pytest.mark.parametrize("weak", [False, True])
def test_behind_a_pooler_each_transaction_sets_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, weak: bool
) -> None:
    answers = looked(8, "off" if weak else "on", "user")
    refused = psycopg.OperationalError("FATAL: unsupported startup parameter: options")
    made, given = opened(monkeypatch, URL, refused, Fake(answers), by_index=True)

    assert [how["options"] is None for how in given] == [False, True]
    assert made.pooled and made.prepare_threshold is None
    begin, locally = made.opening
    assert begin == "BEGIN ISOLATION LEVEL READ COMMITTED"
    assert "set_config('lock_timeout', '5s', true)" in locally
    assert "set_config('enable_seqscan', 'off', true)" in locally
    assert ("set_config('synchronous_commit', 'on', true)" in locally) is weak
    assert "SET synchronous_commit = on" not in made.asked


def test_options_that_do_not_pass_a_pooler_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(looked(8))

    with pytest.raises(CannotOpen) as caught:
        opened(monkeypatch, f"{URL}?options=-c%20statement_timeout%3D5s", fake)

    assert caught.value.lasting and fake.closed
    assert str(caught.value).startswith("cannot connect to postgresql://shop:***@h:5432/shop?options=")
    assert "5s: its `options` do not pass the pooler that it leads to" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "lasting"),
    [
        (psycopg.OperationalError('FATAL: password authentication failed for user "shop"'), True),
        (psycopg.OperationalError("Connection refused"), False),
    ],
)
def test_who_is_not_let_in_is_told_why(
    monkeypatch: pytest.MonkeyPatch, error: psycopg.Error, lasting: bool
) -> None:
    with pytest.raises(CannotOpen) as caught:
        opened(monkeypatch, URL, error)

    assert caught.value.lasting is lasting
    assert str(error) in str(caught.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql:///shop?host=/run/pg", "the socket /run/pg/.s.PGSQL.5432"),
        ("postgresql://a:1,b:2/shop", "a:1, b:2"),
        ("postgresql:///shop?host=a,b", "a:5432, b:5432"),
        ("postgresql:///shop", "localhost:5432"),
    ],
)
def test_a_place_is_told_in_the_words_of_its_url(url: str, place: str) -> None:
    assert connections._door(url, connections.parts_of(url)).place == place


@pytest.mark.parametrize(("thread", "kept"), [("everloop-store", False), ("MainThread", True), (None, True)])
def test_what_psycopg_says_of_the_stores_own_connections_is_left_out(thread: str | None, kept: bool) -> None:
    record = logging.LogRecord("psycopg", logging.WARNING, __file__, 1, "error ignored", None, None)
    record.threadName = thread

    assert connections._NotOurs().filter(record) is kept


# -- the pipe -----------------------------------------------------------------------------------------------


class Libpq:
    """Libpq, as far as the pipe asks it.

    Attributes:
        results: What `get_result` gives, one after the other.
        flushes: What `flush` gives: 1 where something is left to be sent.
    """

    status = pq.ConnStatus.OK

    def __init__(self, results: list[Any], flushes: list[int] | None = None) -> None:
        self.results = results
        self.flushes = flushes or []
        self.consumed = 0
        self.ended = False

    def consume_input(self) -> None:
        self.consumed += 1
        if self.ended:
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    def is_busy(self) -> int:
        return 0

    def get_result(self) -> Any:
        return self.results.pop(0)

    def flush(self) -> int:
        return self.flushes.pop(0) if self.flushes else 0

    def pipeline_sync(self) -> None:
        """It is noted."""

    enter_pipeline_mode = exit_pipeline_mode = pipeline_sync


class Events:
    """A poll that answers as a test says."""

    def __init__(self, *answers: list[tuple[int, int]]) -> None:
        self._answers = list(answers)

    def poll(self, timeout: int | None = None) -> list[tuple[int, int]]:
        return self._answers.pop(0) if self._answers else []


def pipe(libpq: Libpq, *, readable: Events | None = None, ready: Events | None = None) -> Pipe:
    made = Pipe.__new__(Pipe)
    inside: Any = made
    inside._pgconn, inside._trips = libpq, 0
    inside._readable = readable or Events()
    inside._ready = ready or Events()
    return made


def test_what_a_server_says_while_so_much_is_sent_is_read_at_once() -> None:
    end = SimpleNamespace(status=pq.ExecStatus.PIPELINE_SYNC)
    libpq = Libpq([end], flushes=[1, 1, 0])

    pipe(libpq, ready=Events([(3, select.POLLOUT)], [(3, select.POLLIN | select.POLLOUT)])).ask([])

    assert libpq.consumed == 1


def test_a_server_that_sends_no_result_has_lost_the_connection() -> None:
    with pytest.raises(psycopg.OperationalError, match="the server sent no result"):
        list(pipe(Libpq([None]))._result())


@pytest.mark.parametrize("how", ["said", "closed", "silent"])
def test_an_end_is_seen_before_anything_is_sent(how: str) -> None:
    libpq = Libpq([])
    libpq.ended = how == "closed"
    if how == "said":
        libpq.status = pq.ConnStatus.BAD
    told = Events([(3, select.POLLIN)]) if how != "silent" else Events()

    assert pipe(libpq, readable=told).has_ended() is (how != "silent")


# -- the runner ---------------------------------------------------------------------------------------------


class Asking:
    """A pipe that answers with results whose status a test says."""

    def __init__(self, *statuses: pq.ExecStatus, ended: bool = False) -> None:
        self._results = [SimpleNamespace(status=status) for status in statuses]
        self._ended = ended
        self.sent: list[bytes] = []

    def has_ended(self) -> bool:
        return self._ended

    def rows(self, result: Any) -> list[Any]:
        raise NotImplementedError

    def ask(self, sent: list[Any]) -> list[Any]:
        self.sent += [each.sql for each in sent]
        return self._results


@pytest.fixture
def runner() -> Any:
    """A runner whose thread does nothing; its methods are called here."""
    made: Any = PostgresRunner.__new__(PostgresRunner)
    made._begun, made.trips, made._pipe = False, 0, None
    return made


def scope(*rung: int) -> Scope:
    return Scope(ManualClock(), 7, rung=set(rung))


def test_a_commit_is_not_sent_to_a_server_that_has_ended_the_connection(runner: Any) -> None:
    runner._pipe = Asking(ended=True)

    with pytest.raises(Lost, match="the server has ended it while it was idle") as caught:
        runner._commit(Fake({}), [], scope(), durable=True)

    assert caught.value.unsent and runner._pipe.sent == []


def test_a_commit_stands_although_nobody_could_be_woken(
    runner: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "everloop")
    monkeypatch.setattr(errors, "error_from_result", lambda result: psycopg.DataError("no such channel"))
    ok, failed = pq.ExecStatus.COMMAND_OK, pq.ExecStatus.FATAL_ERROR
    runner._pipe = Asking(ok, ok, failed)
    runner._begun = True

    assert runner._commit(Fake({}), [], scope(9), durable=False) == []
    assert "committed, but nobody was woken: no such channel" in caplog.text

    runner._pipe = Asking(ok, failed)
    with pytest.raises(StoreError, match=r"PostgreSQL failed \(COMMIT\): no such channel"):
        runner._commit(Fake({}), [], scope(), durable=False)


def test_waking_after_a_commit_of_the_users_is_one_statement(runner: Any) -> None:
    runner._pipe = Asking(pq.ExecStatus.COMMAND_OK)

    runner.wake(Fake({}), scope(9))

    assert len(runner._pipe.sent) == 1 and b"pg_notify" in runner._pipe.sent[0]


class DriverError(Exception):
    """An error of another driver, which has its own name for the state."""

    pgcode = "40001"


@pytest.mark.parametrize(
    ("error", "kind", "end"),
    [
        (errors.DeadlockDetected("met one\nDETAIL: more"), StoreUnavailable, ": met one (40P01)"),
        (errors.DiskFull("no space"), StoreUnavailable, ": no space (53100)"),
        (DriverError("met one"), StoreUnavailable, ": met one (40001)"),
        (errors.UndefinedTable("no such"), StoreError, ": no such (42P01)"),
        (OSError("no line"), StoreError, ": no line"),
    ],
)
def test_an_error_in_a_transaction_of_the_users_says_whether_it_may_pass(
    error: Exception, kind: type[StoreError], end: str
) -> None:
    told = _explain_by_hand(error, "add_calls")

    assert type(told) is kind
    assert str(told) == f"PostgreSQL failed in your transaction (add_calls){end}"


def test_rows_come_as_lists_by_hand() -> None:
    assert runners._rows_by_hand(None, [(1, "a")]) == [[1, "a"]]  # type: ignore[arg-type]  # it is not looked at


# -- the store ----------------------------------------------------------------------------------------------


@pytest.fixture
def store() -> Any:
    return PostgresStore(URL)


def test_an_old_server_is_refused(store: Any) -> None:
    store._check_server(Fake({}, version=130_000))
    with pytest.raises(ConfigError, match="this server is PostgreSQL 12; Everloop needs 13 or newer"):
        store._check_server(Fake({}, version=120_017))


@pytest.mark.parametrize("level", ["read committed", "repeatable read"])
def test_keys_can_be_judged_by_who_sees_what_others_commit_only(
    store: Any, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    hand: Any = SimpleNamespace(
        style="pyformat", failures=(psycopg.Error,), execute=lambda sql, parameters: [(level,)]
    )

    if level == "read committed":
        store._enter_with_keys(hand)
    else:
        with pytest.raises(
            UsageError, match="it is repeatable read, and does not see the calls with the same"
        ):
            store._enter_with_keys(hand)


@pytest.mark.parametrize(("size", "version"), [([(8_192, "15.4")], "15.4"), ([], "")])
def test_a_server_tells_its_version_its_clock_and_its_settings(
    store: Any, size: list[Any], version: str
) -> None:
    vitals = store._vitals(
        Fake(
            {
                "SELECT coalesce": size,
                "SELECT name, setting": [("fsync", "on"), ("synchronous_commit", "off")],
                "SELECT (extract": [(1_000_000,)],
            }
        )
    )

    assert (vitals.version, vitals.size) == (f"PostgreSQL {version}", 8_192 if size else 0)
    assert vitals.ahead < -1_000_000 * 1_600_000_000, "that clock has hardly begun"
    assert {each.name: each.value for each in vitals.settings} == {
        "fsync": "on",
        "full_page_writes": "",
        "synchronous_commit": "off",
    }


def test_rights_that_are_missing_are_told_with_what_grants_them(store: Any) -> None:
    assert store._forbidden(errors.InsufficientPrivilege("denied"))
    assert not store._forbidden(errors.UndefinedTable("none")) and not store._forbidden(None)
    assert store._grant().endswith("GRANT CREATE ON SCHEMA public TO shop")
    assert PostgresStore("postgresql:///shop")._grant().endswith("TO the_user")
    closed = [("ever_calls", "owner", "public", "shop"), ("ever_seq", "owner", "public", "shop")]
    with pytest.raises(ConfigError) as caught:
        store._schema(Fake({"SELECT 1": [(1,)], "SELECT c.relname": closed}))
    assert str(caught.value) == (
        "the role 'shop' may not use the tables of Everloop in postgresql://shop:***@h:5432/shop, which "
        "belong to the role 'owner' (rights are missing on ever_calls, ever_seq). As 'owner' or an "
        "administrator, in that database: GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "
        "public TO shop; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO shop"
    )


def test_what_blocks_is_ended_when_it_is_ours_and_named_when_it_is_not(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store._unblock(
        Fake(
            {
                "SELECT pid": [(11, True), (12, False)],
                "WITH late": [(13, "shop", ""), (14, "shop", "till")],
            }
        ),
        0,
    )

    assert "its connection 11 was ended" in caplog.text and "connection 12 " not in caplog.text
    assert "connection 13 (no application_name, role shop) holds their rows" in caplog.text
    assert "connection 14 (till, role shop) holds their rows" in caplog.text


# -- who listens --------------------------------------------------------------------------------------------


def listening(make: Callable[[], Any], wake: Callable[[], None], *, worker: bool = False) -> PostgresListener:
    return PostgresListener(make, 7, wake, worker=worker)


async def test_behind_a_pooler_nobody_listens_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    made: list[Fake] = []

    def make() -> Fake:
        made.append(Fake({}))
        made[-1].pooled = True
        return made[-1]

    rung: list[None] = []
    listeners._told.clear()
    both = [listening(make, lambda: rung.append(None)) for _ in range(2)]
    await until(lambda: len(rung) == 2)
    for ears in both:
        ears.stop()

    assert all(each.closed and each.asked == [] for each in made)
    assert caplog.text.count("the store's URL leads to a pooler (h:5432), where nobody can listen") == 1


async def test_a_listener_that_cannot_connect_has_nothing_to_close() -> None:
    tried: list[None] = []

    def refuse() -> Fake:
        tried.append(None)
        raise StoreUnavailable("not now")

    ears = listening(refuse, lambda: None)
    await until(lambda: bool(tried))
    ears.stop()
    ears._interrupt()

    assert ears._connection is None
