"""`submit`: arguments from JSON, options, waiting, outcomes."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Forks, Shop, on_terminal
from tests.helpers.processes import started

ID = "0198c0de-0000-7000-8000-000000000001"


@pytest.fixture(scope="module")
def open_shop(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Iterator[Shop]:
    """A shop with a worker."""
    shop = Shop(tmp_path_factory.mktemp("open"), forks)
    with shop.worker():
        yield shop


def test_the_id_is_printed_and_the_call_stored(shop: Shop) -> None:
    ran = shop.run("submit", "shop:app", "add", "[1]", "--kwargs", '{"y": 2}').checked()
    (id_,) = ran.lines

    told = shop.show(id_)
    assert ran.err == ""
    assert (told["state"], told["function"], told["args"]) == ("ready", "add", [1, 2])


def test_options_reach_the_call(shop: Shop) -> None:
    ran = shop.run(
        "submit", "shop:app", "add", "[1]", "--queue", "slow", "--priority", "5", "--at", "2100-01-01T00:00Z",
        "--key", "k", "--id", ID, "--tag", "a", "--tag", "b",
    )  # fmt: skip

    assert ran.checked().out == f"{ID}\n"
    told = shop.show(ID)
    assert (told["queue"], told["priority"], told["due"]) == ("slow", 5, "2100-01-01T00:00:00.000Z")
    assert (told["key"], told["tags"], told["state"]) == ("k", ["a", "b"], "scheduled")
    assert shop.run("submit", "shop:app", "add", "[1]", "--id", ID, "--key", "k").checked().out == f"{ID}\n"
    conflict = shop.run("submit", "shop:app", "add", "[2]", "--id", ID)
    assert (conflict.code, "belongs to another call" in conflict.err) == (1, True)


def test_the_app_may_be_left_out(shop: Shop) -> None:
    id_ = shop.run("submit", "add", "[1]", "--delay", "60", EVERLOOP_APP="shop:app").checked().out.strip()

    assert shop.show(id_)["state"] == "scheduled"


def test_refused(shop: Shop) -> None:
    said = {
        (
            "ad",
            "[1]",
        ): "the app 'shop' has no task function 'ad'; did you mean 'add'?",
        ("zzz",): "the app 'shop' has no task function 'zzz'; it has add, block, fail, grow, hold, "
        "later, send, shatter, sit, tell, who",
        (
            "add",
            "[]",
        ): "add() is missing 1 required argument: 'x'\nIts signature is add(x: int, y: int = 1).",
        (
            "add",
            "[1, 2, 3]",
        ): "add() takes 1 to 2 positional arguments but 3 were given",
        (
            "add",
            '["one"]',
        ): "add(x=): expected `int`, got `str` ('one')",
        (
            "add",
            "[1]",
            "--kwargs",
            '{"z": 1}',
        ): "got an unexpected keyword argument 'z'",
        (
            "later",
            '["yesterday"]',
        ): "later(at=): expected `datetime`",
        (
            "add",
            "1",
        ): "ARGS is a JSON list, such as",
        (
            "add",
            "[1",
        ): "ARGS is no JSON",
        (
            "add",
            "[1]",
            "--kwargs",
            "[]",
        ): "--kwargs is a JSON object",
        (
            "add",
            "[1]",
            "[2]",
        ): "too many arguments (4)",
        (
            "add",
            "[1]",
            "--priority",
            "1000",
        ): "`priority` is a whole number",
        (
            "add",
            "[1]",
            "--at",
            "2100-01-01T00:00",
        ): "does not say of which time zone; write 2100-01-01T00:00Z",
        (
            "add",
            "[1]",
            "--at",
            "soon",
        ): "--at is no time: 'soon'",
        (
            "add",
            "[1]",
            "--id",
            "1",
        ): "`id` is a UUID",
        (
            "add",
            "[1]",
            "--timeout",
            "1",
        ): "--timeout is for --wait",
    }
    shop.check_refusals(2, {("submit", "shop:app", *line): words for line, words in said.items()})


def test_waiting_prints_the_result_as_json(open_shop: Shop) -> None:
    ran = open_shop.run("submit", "shop:app", "add", "[1, 2]", "--wait").checked()
    assert json.loads(ran.out) == 3

    ran = open_shop.run("submit", "shop:app", "later", '["2030-01-31T09:00:00Z"]', "--wait").checked()
    assert json.loads(ran.out) == "2031-01-31T09:00:00Z"


def test_waiting_for_a_failure_exits_with_1_and_shows_the_remote_traceback(open_shop: Shop) -> None:
    ran = open_shop.run("submit", "shop:app", "fail", '["no way"]', "--wait")

    assert (ran.code, ran.out) == (1, "")
    assert "raise ValueError(text)" in ran.err
    assert ran.err.count('  File "') == 1  # the user's frames, and none of ours
    assert ran.err.splitlines()[-1] == "everloop: ValueError: no way"


def test_waiting_on_a_terminal_shows_the_progress(open_shop: Shop) -> None:
    def let_go(shown: str) -> None:
        if "1/2" in shown:
            open_shop.gate().touch()

    hold = ("submit", "shop:app", "hold", json.dumps([str(open_shop.gate())]), "--wait")
    shown = on_terminal(open_shop, *hold, seen=let_go)

    assert re.search("█+\x1b\\[0m\x1b\\[2m░+\x1b", shown)
    assert "1/2  leased" in shown
    assert shown.rpartition("\x1b[K")[2] == '"let go"\r\n'


def test_the_time_to_wait_is_over(shop: Shop) -> None:
    ran = shop.run("submit", "shop:app", "add", "[1]", "--wait", "--timeout", "0.1")

    assert (ran.code, ran.out) == (5, "")
    assert "is ready after 0.1 s; it goes on without us" in ran.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_waiting_and_the_call_goes_on(
    shop: Shop, number: signal.Signals, code: int
) -> None:
    command = ("-m", "everloop", "submit", "shop:app", "add", "[1, 2]", "--wait", "--id", ID)
    with started(*command, folder=shop.folder, env=shop.env) as running:
        running.until("waiting for")
        running.signal(number)
        ran = running.ended()

    assert (ran.code, ran.out) == (code, "")
    assert f"everloop show {ID}" in ran.err
    assert "Traceback" not in ran.err
    assert shop.show(ID)["state"] == "ready"


def test_waiting_for_a_cancelled_call(shop: Shop) -> None:
    command = ("-m", "everloop", "submit", "shop:app", "add", "[1, 2]", "--wait", "--id", ID)
    with started(*command, folder=shop.folder, env=shop.env) as running:
        running.until("waiting for")
        assert shop.run("cancel", "shop:app", ID).checked().out == f"{ID} cancelled\n"
        ran = running.ended()

    assert (ran.code, ran.out) == (1, "")
    assert f"the call {ID} was cancelled" in ran.err
