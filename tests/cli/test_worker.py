"""`worker`: what it says, what it serves, and how signals end it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from everloop import App
from tests.cli.conftest import Shop
from tests.helpers.processes import started, worker
from tests.helpers.servers.fixtures import postgresql, postgresql_url

__all__ = ["postgresql", "postgresql_url"]


def submit(shop: Shop, name: str) -> str:
    return shop.run("submit", "shop:app", name, json.dumps([str(shop.gate())])).checked().out.strip()


def test_it_says_what_it_serves_when_it_is_ready(shop: Shop) -> None:
    with shop.worker() as running:
        (line,) = running.err.splitlines()

    assert line == (
        f"everloop: worker ready: app shop, store {shop.store}, queues default, mail, "
        "functions add, block, fail, grow, hold, later, send, shatter, sit, tell, who, "
        f"pid {running.process.pid}"
    )
    assert running.out == ""


def test_it_serves_only_the_queues_that_are_named(shop: Shop) -> None:
    with shop.worker("--queues", "mail, other", "--concurrency", "1") as running:
        assert "queues mail, other" in running.err
        waiting = shop.run("submit", "shop:app", "add", "[1]").checked().out.strip()
        ran = shop.run("submit", "shop:app", "send", '["ada"]', "--kwargs", '{"subject": "hi"}', "--wait")

    assert json.loads(ran.checked().out) == "hi to ada"
    assert shop.show(waiting)["state"] == "ready"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_a_running_call_finish(shop: Shop, number: signal.Signals) -> None:
    with shop.worker("--grace", "30") as running:
        id_ = submit(shop, "hold")
        shop.wait_until_begun()
        running.signal(number)
        running.until(f"{number.name}: no more calls are taken: 1 running call may finish within 30 s")
        shop.gate().touch()
        ended = running.ended()

    assert ended.code == 0
    assert ended.err.splitlines()[-1] == "everloop: stopped"
    assert (shop.show(id_)["state"], shop.show(id_)["result"]) == ("succeeded", "let go")


def test_progress_is_shown_while_it_runs(shop: Shop) -> None:
    with shop.worker():
        id_ = submit(shop, "hold")
        shop.wait_until_begun()
        shop.run("submit", "shop:app", "add", "[1]", "--wait").checked()  # a turn later
        assert shop.show(id_)["progress"] == {"done": 1.0, "total": 2.0, "note": "holding \x1b[7mon"}
        assert "[##########          ] 1/2 holding [7mon" in shop.run("show", "shop:app", id_).out
        assert "1/2 holding [7mon" in shop.run("ls", "shop:app").out
        shop.gate().touch()


def test_the_end_of_the_grace_period_is_announced(shop: Shop) -> None:
    with shop.worker("--grace", "0.1") as running:
        id_ = submit(shop, "hold")
        shop.wait_until_begun()
        running.signal(signal.SIGTERM)
        ended = running.ended()

    assert ended.code == 0
    assert "the grace period is over: 1 running call is released for other workers" in ended.err
    assert (shop.show(id_)["state"], shop.show(id_)["attempts"]) == ("ready", 0)


def test_the_second_signal_releases_at_once(shop: Shop) -> None:
    with shop.worker() as running:
        id_ = submit(shop, "hold")
        shop.wait_until_begun()
        running.signal(signal.SIGINT)
        running.until("no more calls are taken")
        running.signal(signal.SIGINT)
        ended = running.ended()

    assert ended.code == 130
    assert "SIGINT again: 1 running call is released for other workers now" in ended.err
    assert (shop.show(id_)["state"], shop.show(id_)["attempts"]) == ("ready", 0)


def test_the_third_signal_kills(shop: Shop) -> None:
    with shop.worker() as running:
        submit(shop, "sit")
        shop.wait_until_begun()
        for said in ("no more calls are taken", "SIGTERM again"):
            running.signal(signal.SIGTERM)
            running.until(said)
        running.signal(signal.SIGTERM)
        ended = running.ended(5)

    assert ended.code == 143
    assert ended.err.splitlines()[-1] == "everloop: SIGTERM for the third time: killed"


def test_a_thread_that_does_not_end_does_not_keep_the_process(shop: Shop) -> None:
    with shop.worker("--grace", "0") as running:
        id_ = submit(shop, "sit")
        shop.wait_until_begun()
        running.signal(signal.SIGTERM)
        ended = running.ended(20)

    assert ended.code == 0
    assert "stopped; 1 running call did not stop and is left behind" in ended.err
    assert shop.show(id_)["state"] == "ready"


def test_a_loop_that_is_silent_for_too_long_ends_the_worker(shop: Shop) -> None:
    with shop.worker(EVERLOOP_STALL_LIMIT="1") as running:
        id_ = submit(shop, "block")
        ended = running.ended()

    assert ended.code == 70
    assert "everloop: the event loop has not answered for " in ended.err
    assert "ending this process" in ended.err
    assert "in block" in ended.err, "the stack shows where it was"
    shop.gate().touch()
    with shop.worker("--stall-limit", "none"):
        wait = ("submit", "shop:app", "who", "--wait")
        assert shop.run(*wait).checked().out
        assert shop.show(id_)["crashes"] == 1


def test_where_native_code_ended_a_worker_is_shown(shop: Shop) -> None:
    with shop.worker() as running:
        shop.run("submit", "shop:app", "shatter").checked()
        ended = running.ended()
    assert ended.code == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in ended.err
    assert "shop.py" in ended.err and "in shatter" in ended.err


def test_a_store_that_is_not_usable(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, but long enough to be looked at", encoding="utf-8")
    for url, said in (
        (f"sqlite:///{tmp_path}/text.db", "is not an SQLite database"),
        ("sqlite:////nowhere/x.db", "does not exist"),
    ):
        arguments = ("-m", "everloop", "worker", "shop:app")
        with started(*arguments, folder=shop.folder, env={**shop.env, "EVERLOOP_STORE": url}) as running:
            ran = running.ended()
        assert ran.code == 4
        assert said in ran.err
        assert "Traceback" not in ran.err


@pytest.mark.server
def test_the_password_of_the_store_is_not_shown(shop: Shop, postgresql_url: str) -> None:
    with worker(
        "shop:app", folder=shop.folder, env={**shop.env, "EVERLOOP_STORE": postgresql_url}
    ) as running:
        assert "store postgresql://" in running.err
    assert str(urlsplit(postgresql_url).password) not in running.err
    assert "***" in repr(App("shop", postgresql_url))
