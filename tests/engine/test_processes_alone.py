"""What a worker and one of its processes say to each other, without a process; and odd moments of a body."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from everloop import FunctionError, ResultNotStorable, UsageError
from everloop._core.codec import error_record
from everloop._core.errors import TaskFailed
from everloop._core.logs import LogRecord
from everloop._core.records import Lane, Leased, Progress
from everloop.engine.attempt import Attempt
from everloop.engine.executor import RetryAfter, RetryRule
from everloop.engine.keeper import Keeper
from everloop.engine.processes import home, pool, wire
from everloop.engine.processes.child import Child
from everloop.engine.processes.ends import ProcessDied, RaisedElsewhere, last_words
from everloop.engine.processes.pool import ProcessPool
from everloop.store.memory import MemoryStore

RECORD = LogRecord(1, "INFO", "shop", "it went well")


def attempt() -> Attempt:
    leased = Leased("call", 1, Lane("a", "default", "work"), b"j", b"", 0, 0, 0, 0, None, 0, 0)
    return Attempt(leased, lambda: None, lambda: None)


# -- messages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [None, 0, 2, 5])
def test_a_message_comes_whole_or_not_at_all(cut: int | None) -> None:
    data = wire.frame(wire.Stop("cancelled", "enough"))
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        ours.sendall(data[:cut])
        ours.shutdown(socket.SHUT_WR)
        found = wire.receive(theirs)

    assert found == (wire.Stop("cancelled", "enough") if cut is None else None)


def test_a_line_that_was_reset_says_no_more() -> None:
    def recv(count: int) -> bytes:
        raise ConnectionResetError

    line: Any = SimpleNamespace(recv=recv)

    assert wire.receive(line) is None


class Scribe:
    """Keeps what it is told."""

    level = 0

    def __init__(self) -> None:
        self.told_: list[object] = []

    def logged(self, attempt: Attempt, record: object) -> None:
        raise NotImplementedError

    def told(self, attempt: Attempt, record: LogRecord) -> None:
        self.told_.append(record)

    def printed(self, attempt: Attempt, text: str) -> None:
        self.told_.append(text)


@pytest.fixture
def child() -> Any:
    """The worker's side of a process that was never started."""
    made: Any = Child.__new__(Child)
    made._attempt = made._answer = None
    made._pending = bytearray()
    made.gone = asyncio.Event()
    return made


async def test_what_a_body_reports_reaches_its_attempt_and_nobody_once_that_is_over(child: Any) -> None:
    running, scribe, beats = attempt(), Scribe(), list[None]()
    reports: list[Progress] = []
    running.on_progress, running.on_beat = reports.append, lambda: beats.append(None)
    said = [wire.Report(1.0, 2.0, "half"), wire.Beat(), wire.Logged(RECORD), wire.Printed("words\n")]

    child._attempt = running
    for news in said:
        child._heard(news)
    running.scribe = scribe
    for news in said[2:]:
        child._heard(news)
    child._attempt = None
    for news in said:
        child._heard(news)

    assert reports == [Progress("call", 1, 1.0, 2.0, "half")]
    assert len(beats) == 2, "a report is a sign of life, too"
    assert scribe.told_ == [RECORD, "words\n"]


async def test_an_answer_that_nobody_waits_for_is_dropped(child: Any) -> None:
    child._heard(wire.Value(b"j7", settled=False))
    child._answer = asyncio.get_running_loop().create_future()
    child._heard(wire.Value(b"j7", settled=False))
    child._heard(wire.Value(b"j8", settled=False))

    assert child._answer.result() == wire.Value(b"j7", settled=False)


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (wire.Raised(b"", ["ValueError"]), RaisedElsewhere, "a body raised something"),
        (wire.Refused("ResultNotStorable", "too large"), ResultNotStorable, "too large"),
        (wire.PutOff(2_500_000), RetryAfter, "again in 2.5 s"),
        (wire.Cancelled("enough"), asyncio.CancelledError, "enough"),
    ],
)
async def test_what_ended_a_body_there_is_raised_here(
    child: Any, answer: wire.Answer, kind: type[BaseException], text: str
) -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result(answer)

    with pytest.raises(kind, match=text):
        child._read(future, attempt(), stopped=False)


@pytest.mark.parametrize(("stopped", "kind"), [(True, asyncio.CancelledError), (False, ProcessDied)])
async def test_a_process_that_was_killed_because_its_body_did_not_stop_has_not_died(
    child: Any, stopped: bool, kind: type[BaseException]
) -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(ProcessDied(last_words(-9)))

    with pytest.raises(kind):
        child._read(future, attempt(), stopped=stopped)


class Line:
    """A socket that takes so many bytes at each try; an exception is raised."""

    def __init__(self, *takes: int | Exception) -> None:
        self.takes = list(takes)
        self.sent = b""

    def send(self, data: bytes) -> int:
        take = self.takes.pop(0)
        if isinstance(take, Exception):
            raise take
        self.sent += bytes(data[:take])
        return take


class Writers:
    """Stands for the loop: whether it is asked to say when more can be sent."""

    waiting = False

    def add_writer(self, line: object, flush: object) -> None:
        self.waiting = True

    def remove_writer(self, line: object) -> None:
        self.waiting = False


async def test_what_a_process_does_not_take_yet_is_sent_later_in_order(child: Any) -> None:
    child._ours, child._loop = Line(BlockingIOError(), 3, 1_000), Writers()
    messages = [wire.Stop("cancelled", "a"), wire.End()]

    child._send(messages[0])
    assert child._loop.waiting
    child._send(messages[1])  # behind the first, which waits
    for _ in range(2):
        assert child._loop.waiting
        child._flush()

    assert child._ours.sent == b"".join(map(wire.frame, messages))
    assert not child._loop.waiting


async def test_what_is_said_to_a_process_that_has_died_is_dropped(child: Any) -> None:
    child._ours, child._loop = Line(BrokenPipeError()), Writers()
    child._send(wire.End())
    assert not child._pending and not child._loop.waiting

    child.gone.set()
    child._send(wire.End())
    assert not child._pending and not child.usable


async def test_who_is_cancelled_while_a_process_closes_kills_it(
    child: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[None] = []
    monkeypatch.setattr(child, "kill", lambda: killed.append(None), raising=False)
    child._ours, child._loop = Line(1_000), Writers()
    child._loop.call_later = asyncio.get_running_loop().call_later

    closing_ = asyncio.ensure_future(child.close())
    await asyncio.sleep(0)
    closing_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing_
    assert killed == [None]


async def test_processes_that_have_gone_are_passed_over_and_one_that_cannot_start_puts_the_call_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(setup: object) -> Child:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(pool, "Child", refuse)
    processes = ProcessPool()
    gone: Any = Child.__new__(Child)
    gone._answer, gone.gone = None, asyncio.Event()
    gone.gone.set()
    processes._idle.append(gone)
    processes._all.add(gone)

    with pytest.raises(RetryAfter):
        await processes.run(wire.Home("a", "work", ()), attempt())

    assert (processes._idle, processes._all) == ([], set())
    assert (
        "no process could be started ([Errno 11] Resource temporarily unavailable); trying again"
        in caplog.text
    )


# -- where a function is found again ------------------------------------------------------------------------


def test_a_function_of_the_program_itself_is_found_by_its_file_or_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "shop.py"
    file.touch()
    main = SimpleNamespace(__spec__=None, __file__=str(file))
    monkeypatch.setitem(sys.modules, "__main__", main)  # type: ignore[arg-type]  # it stands for a module

    places = home.home_of("a", "work", ["__main__", "till", "till"]).modules
    assert [(place.name, place.file) for place in places] == [("shop", str(file)), ("till", "")]
    main.__spec__ = SimpleNamespace(name="shop.__main__")
    assert home.home_of("a", "work", ["__main__"]).modules[0].file == ""
    main.__spec__, main.__file__ = None, "<stdin>"
    with pytest.raises(FunctionError, match=r"work\(\) cannot run in a process: it is declared in an inter"):
        home.home_of("a", "work", ["__main__"])


def test_a_store_that_lives_in_this_process_cannot_be_shared_with_another() -> None:
    home.check_shared("sqlite:///shop.db")
    with pytest.raises(UsageError, match="the store memory://shop lives inside the worker's process"):
        home.check_shared("memory://shop")


@pytest.mark.parametrize(("never", "allowed"), [((), True), (("OSError",), False), (("KeyError",), True)])
def test_what_was_raised_elsewhere_is_repeated_by_its_names(never: tuple[str, ...], allowed: bool) -> None:
    raised = RaisedElsewhere(error_record(TaskFailed, "odd"), ["TimeoutError", "OSError", "Exception"])

    assert RetryRule(3, never=never).allows(raised, 1) is allowed


# -- odd moments of a body ----------------------------------------------------------------------------------


def test_a_child_that_begins_or_ends_when_its_parent_is_over_counts_no_more() -> None:
    told: list[str] = []
    leased = attempt().leased
    parent = Attempt(leased, lambda: told.append("suspend"), lambda: told.append("resume"))

    parent.child_began()
    parent.end()
    parent.child_began()
    parent.child_ended()

    assert told == ["suspend", "resume"]


def test_the_first_reason_to_stop_stays_unless_the_lease_is_lost() -> None:
    running = attempt()

    running.stop("timeout", "too long")
    running.stop("cancelled", "enough")
    assert (running.stopping, running.message) == ("timeout", "too long")
    running.stop("lost", "gone")
    assert (running.stopping, running.message) == ("lost", "gone")


def test_progress_that_nobody_stores_is_a_sign_of_life_all_the_same() -> None:
    running, beats = attempt(), list[None]()
    running.on_beat = lambda: beats.append(None)

    running.report(1, 2, "half")

    assert len(beats) == 1 and running.progress == Progress("call", 1, 1, 2, "half")


def test_a_keeper_whose_owner_is_gone_ends() -> None:
    keepers: list[Keeper] = []

    async def make() -> None:
        keepers.append(Keeper(MemoryStore(), 1, time.monotonic(), 10.0, lambda: None, None))

    asyncio.run(make())
    keepers[0]._call_owner(lambda: None)

    assert keepers[0]._stop.is_set()
    assert threading.current_thread().is_alive() and not keepers[0].is_alive
    keepers[0]._leave()  # it has not begun: there is nothing to end
    assert keepers[0]._woken.is_set()
