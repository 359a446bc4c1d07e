"""`everloop worker --processes N`, and workers that are replaced."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import signal
import socket
import time
from collections.abc import Callable

import click
import pytest

from everloop.cli import supervisor
from everloop.cli.control import READY, Control, Died, Report, Stop, line, read_report
from everloop.cli.limits import Limits, read_silence, read_size
from everloop.cli.supervisor import Member
from everloop.engine.gauges import resident
from everloop.engine.processes.ends import last_words
from tests.cli.conftest import Shop
from tests.helpers.processes import Running, started
from tests.helpers.servers.fixtures import postgresql, postgresql_url

__all__ = ["postgresql", "postgresql_url"]


def submit(shop: Shop, name: str) -> str:
    return shop.run("submit", "shop:app", name, json.dumps([str(shop.gate())])).checked().out.strip()


def pids(running: Running) -> list[int]:
    """Return the workers' processes, in the order in which they were ready."""
    return [int(pid) for pid in re.findall(r"worker ready: .* pid (\d+)\n", running.err)]


def wait_until(true: Callable[[], bool], what: str = "") -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, what or "not within 20 s"
        time.sleep(0.005)


def all_ready(running: Running, count: int) -> list[int]:
    wait_until(lambda: len(pids(running)) >= count, running.err)
    return pids(running)


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.both_loops
async def test_a_worker_hears_of_its_supervisors_end_behind_its_last_word() -> None:
    ours, theirs = socket.socketpair()
    died: list[int] = []
    ended = asyncio.Event()
    control = Control(ours.detach(), lambda *_: ended.set(), lambda session, _: died.append(session))
    try:
        control.say(Report(READY))  # nobody reads it: so the end is a reset
        theirs.send(line(Died(7, "it fell")))
        theirs.close()
        async with asyncio.timeout(10):
            await ended.wait()
    finally:
        control.close()

    assert died == [7]


def test_all_of_them_drain_on_the_first_signal_even_when_everybody_gets_it(shop: Shop) -> None:
    with shop.worker("--processes", "2", "--grace", "30") as running:
        workers = all_ready(running, 2)
        ids = [submit(shop, "hold"), submit(shop, "hold")]
        shop.wait_until_begun()
        # As systemd does it: every process of the service is told.
        for pid in (*workers, running.process.pid):
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: running.err.count("SIGTERM: no more calls are taken") == 2)
        shop.gate().touch()
        ended = running.ended()

    assert ended.code == 0
    assert f"everloop: 2 workers, watched by pid {running.process.pid}\n" in ended.err
    assert "again" not in ended.err
    assert ended.err.splitlines()[-1] == "everloop: all workers have stopped"
    assert not any(map(runs, workers))
    # One may not have begun when the drain did: it is there for the next worker.
    assert {shop.show(id_)["state"] for id_ in ids} <= {"succeeded", "ready"}


def test_one_that_dies_is_started_anew_and_how_it_died_is_said(shop: Shop) -> None:
    with shop.worker("--processes", "2") as running:
        first, second = all_ready(running, 2)
        os.kill(first, signal.SIGKILL)
        third = all_ready(running, 3)[2]
        assert re.search(r"worker \d: it was killed by SIGKILL .*; another is started in 1 s", running.err)
        assert third not in (first, second)
        os.kill(second, signal.SIGKILL)
        ran = shop.run("submit", "shop:app", "who", "--wait").checked()
        assert int(ran.out) == third


@pytest.mark.server
def test_how_a_worker_died_is_written_down_with_its_calls_at_once(shop: Shop, postgresql_url: str) -> None:
    shop.env |= {"EVERLOOP_STORE": postgresql_url, "SHOP_LEASE": "600"}  # nobody else takes over in time
    with shop.worker("--processes", "2") as running:
        all_ready(running, 2)
        ran = shop.run("submit", "shop:app", "shatter", "--wait")
        died = r"it was killed by SIGSEGV \(in native code\), in string_at \(\S+/ctypes/\S+:\d+\)"
        told = rf"`crashes=0` allows 0; the last one was pid (\d+) on \S+: {died}"
        found = re.search(told, ran.err)
        assert ran.code == 1
        assert found is not None, ran.err
        assert int(found[1]) in pids(running)
        assert re.search(rf"everloop: worker \d: {died}.*; another is started in 1 s", running.err)
        assert "Fatal Python error: Segmentation fault" in running.err


def test_they_say_where_their_calls_are(shop: Shop) -> None:
    with shop.worker("--processes", "2") as running:
        all_ready(running, 2)
        id_ = submit(shop, "hold")
        shop.wait_until_begun()

        def said() -> bool:
            running.signal(signal.SIGUSR1)
            return "in hold\n" in running.err

        wait_until(said, "nobody says where it is")
        told = rf"everloop: pid \d+ holds these calls:\n    hold {id_}\n        shop.py:\d+ in hold\n"
        assert re.search(told, running.err)
        wait_until(lambda: "holds no call\n" in running.err)
        shop.gate().touch()


def test_what_a_worker_held_is_said_with_its_death() -> None:
    member = Member(1)
    assert member.last.held == ""
    member.heard(Report(READY, 7, 1, ("hold 1",)))
    member.ended()
    assert member.last.held == ", while it held 1 call (hold 1)"
    assert (member.last.session, member.how) == (7, "it has ended")
    assert Report(READY, 7, 5, ("a 1", "b 2", "c 3")).held == ", while it held 5 calls (a 1, b 2, c 3, ...)"
    member.starts()
    assert (member.last.session, member.last.held) == (0, "")


def test_what_they_say_to_each_other() -> None:
    report = Report("it is draining", 7, 2, ("add 1", "add 2"))
    assert read_report(line(report)) == report
    assert read_report(line(report)[:-9]) is None, "the socket was full"
    assert line(Stop(2, "SIGINT")) == b'{"type":"stop","level":2,"signal":"SIGINT"}\n'
    assert line(Died(7, "it fell")) == b'{"type":"died","session":7,"how":"it fell"}\n'


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, "it ended itself with exit code 1"),
        (70, "it ended itself with exit code 70 (its event loop was blocked for longer than `stall_limit`)"),
        (-9, "it was killed by SIGKILL (as the kernel does when memory is short)"),
        (-11, "it was killed by SIGSEGV (in native code)"),
        (-99, "it was killed by signal 99"),
    ],
)
def test_how_a_process_ended(code: int, said: str) -> None:
    assert last_words(code) == said


def test_one_that_is_told_to_stop_is_replaced_at_once(shop: Shop) -> None:
    with shop.worker("--processes", "2") as running:
        first = all_ready(running, 2)[0]
        os.kill(first, signal.SIGTERM)
        all_ready(running, 3)
        assert re.search(r"worker \d: it ended itself with exit code 0; another is started now", running.err)


def test_the_second_signal_releases_and_the_third_kills(shop: Shop) -> None:
    with shop.worker("--processes", "2") as running:
        workers = all_ready(running, 2)
        id_ = submit(shop, "hold")
        shop.wait_until_begun()
        running.signal(signal.SIGINT)
        running.until("SIGINT: no more calls are taken")
        running.signal(signal.SIGINT)
        ended = running.ended()
    assert ended.code == 130
    assert "SIGINT again: 1 running call is released for other workers now" in ended.err
    assert (shop.show(id_)["state"], shop.show(id_)["attempts"]) == ("ready", 0)

    with shop.worker("--processes", "2") as running:
        workers = all_ready(running, 4)[2:]
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        for said in (
            "SIGTERM: the workers are told to stop",
            "SIGTERM again: the workers",
            "SIGTERM for the",
        ):
            running.signal(signal.SIGTERM)  # signals of one number do not queue
            running.until(said)
        ended = running.ended(5)
    assert ended.code == 143
    assert "SIGTERM for the third time: the workers are killed" in ended.err
    assert not any(map(runs, workers))


def test_workers_whose_supervisor_was_killed_drain(shop: Shop) -> None:
    with shop.worker("--processes", "2") as running:
        workers = all_ready(running, 2)
        running.kill()
        wait_until(lambda: not any(map(runs, workers)))
    assert running.err.count("everloop: stopped") == 2


def test_what_no_worker_can_begin_with_ends_them_all(shop: Shop) -> None:
    for target, env, code, said in (
        ("shop:nothing", {}, 2, "nothing"),
        ("shop:app", {"EVERLOOP_STORE": "sqlite:////nowhere/x.db"}, 4, "does not exist"),
    ):
        arguments = ("-m", "everloop", "worker", target, "--processes", "2")
        with started(*arguments, folder=shop.folder, env={**shop.env, **env}, name=f"bad{code}") as running:
            ran = running.ended(30)
        assert ran.code == code
        assert said in ran.err
        assert "Traceback" not in ran.err
        # One of them may have found the store busy only: it is the last one that says that none can begin.
        assert ran.err.count("another is started") <= (code == 4)


def test_a_worker_is_replaced_after_so_many_calls(shop: Shop) -> None:
    with shop.worker("--max-calls", "2", "--concurrency", "1") as running:
        assert "everloop: 1 worker, watched by pid" in running.err
        ran = [int(shop.run("submit", "shop:app", "who", "--wait").checked().out) for _ in range(2)]
        first, second = all_ready(running, 2)
        assert set(ran) == {first}
        assert (
            "this worker has run 2 calls (--max-calls 2): another takes its place: no call is" in running.err
        )
        assert int(shop.run("submit", "shop:app", "who", "--wait").checked().out) == second
    assert "exit code" not in running.err


def test_a_worker_is_replaced_when_it_holds_too_much_memory(shop: Shop) -> None:
    with shop.worker("--max-memory", "200MB") as running:
        grown = int(shop.run("submit", "shop:app", "grow", "[200]", "--wait").checked().out)
        first, _ = all_ready(running, 2)
        assert grown == first
        assert re.search(r"this worker holds \d+ MB \(--max-memory 200 MB\): another takes", running.err)


def test_sizes() -> None:
    context, option = click.Context(click.Command("worker")), click.Option(["--max-memory"])

    def read(text: str | None) -> int | None:
        return read_size(context, option, text)

    assert (read("500MB"), read("1.5 GiB"), read("2000000"), read(None)) == (
        500_000_000,
        3 << 29,
        2_000_000,
        None,
    )
    with pytest.raises(
        click.BadParameter, match=r"'lots' is no size; write 500MB, 1\.5GiB, or a number of bytes"
    ):
        read("lots")
    with pytest.raises(
        click.BadParameter, match="'10K' is less than a megabyte, and no worker is that small"
    ):
        read("10K")
    assert 10_000_000 < resident() < 10_000_000_000
    assert not Limits()


def test_for_how_long_a_loop_may_be_silent() -> None:
    context, option = click.Context(click.Command("worker")), click.Option(["--stall-limit"])

    def read(text: str | None) -> float | None:
        return read_silence(context, option, text)

    assert (read("90"), read("1.5"), read(" None "), read(None)) == (90.0, 1.5, math.inf, None)
    for wrong in ("0.5", "soon", "inf", "nan"):
        with pytest.raises(click.BadParameter) as caught:
            read(wrong)
        assert caught.value.message == (
            f"{wrong!r} is no limit; write a number of seconds, 1 or more (600), or none to never end it"
        )


def test_a_worker_that_says_nothing_is_not_taken_for_well(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now[0])
    member = Member(1)
    assert member.how == "it is starting"
    member.heard(Report("ready"))
    assert (member.how, member.was_ready) == ("ready", True)
    now[0] = supervisor.FRESH + 1
    assert member.how == "it has said nothing for 11 s"
    assert not member.alive
