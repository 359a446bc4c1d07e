"""`demo`: pages at once, in a pipe and on a terminal, and with a worker that is killed half-way."""

from __future__ import annotations

import json
import os
import re
import signal
import socket

import pytest

from everloop.cli.demo.site import MIXED, STEADY
from tests.cli.conftest import Shop, on_terminal
from tests.helpers.processes import started

DEMO = ("-m", "everloop", "demo")


def table(out: str) -> list[list[str]]:
    """Return the rows of the final table: page, status, bytes, time, attempts."""
    rows = out.partition("\nPAGE ")[2].partition("\n\n")[0].splitlines()[1:]
    return [re.split(r"  +", row) for row in rows]


def test_it_works_offline_and_shows_each_page(shop: Shop) -> None:
    ran = shop.run("demo", "--db", "sqlite:///demo.db").checked()
    rows = {row[0]: row[1:] for row in table(ran.out)}

    assert list(rows) == [page.path for page in MIXED]
    assert (rows["/"][0], rows["/flaky"][0], rows["/flaky"][3]) == ("200", "200", "3")
    assert (rows["/missing"][0], rows["/broken"]) == (
        "404",
        ["500", "-", rows["/broken"][2], "3", "Internal Server Error"],
    )
    done = [line.split("  ")[-1] for line in ran.out.partition("\nPAGE ")[0].splitlines()]
    assert len(done) >= len(MIXED)
    assert ran.out.index("/contact\n") < ran.out.index("/slower\n")  # as they complete
    assert "\r" not in ran.out + ran.err
    assert re.search(r"12 pages in [\d.]+ s; their times add up to [\d.]+ s \([\d.]+ times\)", ran.out)
    assert "1 page failed" in ran.out
    assert "11 rows stored" in ran.out
    listed = shop.run("ls", "--db", "sqlite:///demo.db", "-o", "jsonl").checked().lines
    assert len(listed) == len(MIXED)


def test_the_fresh_file_is_printed(shop: Shop) -> None:
    ran = shop.run("demo", "http://127.0.0.1:9/", TMPDIR=str(shop.folder))
    url = re.search(r"stored in (sqlite:\S+)", ran.err)

    assert url is not None
    assert url[1].startswith(f"sqlite:///{shop.folder}/everloop-")
    assert f"everloop ls --db {url[1]}" in ran.err


def test_pages_that_cannot_be_reached_are_rows_with_a_reason(shop: Shop) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        ran = shop.run("demo", closed, "http://surely-not-there.invalid/", "--db", "sqlite:///demo.db")

    assert ran.code == 1
    first, second = table(ran.out)
    assert first[0] == closed
    assert first[5].startswith("cannot reach 127.0.0.1: ")
    assert second[5].startswith("cannot reach surely-not-there.invalid: ")
    assert (first[4], second[4]) == ("3", "3")
    assert "Traceback" not in ran.out + ran.err
    assert "0 rows stored" in ran.out


def test_refused_at_once(shop: Shop) -> None:
    said = {
        ("demo", "example.org"): "'example.org' has no scheme; write https://example.org",
        ("demo", "ftp://example.org/x"): "write https://example.org/x",
        ("demo", "htp://example.org"): "write https://example.org",
        ("demo", "https://"): "names no host",
        ("demo", "https://exa mple.org"): "has a blank in it",
        ("demo", "http://[::1"): "is no URL",
        ("demo", "http://example.org:port/"): "is no URL",
        ("demo", "--db", "demo.db"): "write sqlite:///demo.db",
        ("demo", "--db", "memory://"): "in an SQLite file",
        ("demo", "--db", "oracle://root@localhost/x"): "unknown store 'oracle'",
        (
            "demo",
            "--db",
            "mysql://root:secret@localhost/x",
        ): "not mysql://root:***@localhost/x, but sqlite:///",
    }
    shop.check_refusals(2, said)
    shop.check_refusals(4, {("demo", "--db", "sqlite:////nowhere/x.db"): "does not exist"})


@pytest.mark.parametrize("missing", ["sqlalchemy", "aiosqlite"])
def test_a_missing_package_is_named_with_the_install_line(shop: Shop, missing: str) -> None:
    hide = f"""
import importlib.util, sys
from everloop.cli import main
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {missing!r} else find(name, *rest)
sys.exit(main(["demo"]))
"""
    with started("-c", hide, folder=shop.folder, env=shop.env) as running:
        ran = running.ended()

    assert ran.code == 2
    assert f'{missing}, which is not installed: pip install "everloop[sql]"' in ran.err


def test_killing_the_worker_loses_and_doubles_nothing(shop: Shop) -> None:
    ran = shop.run("demo", "--kill", "--db", "sqlite:///demo.db").checked()

    killed = re.search(r"killed with SIGKILL: (\d+) of 24 pages done, (\d+) running", ran.err)
    assert killed is not None
    running = int(killed[2])
    assert int(killed[1]) >= len(STEADY) // 2
    assert running >= 1
    verdict = dict(re.findall(r"^([a-z ]+?)  +(\d+.*)$", ran.out, re.MULTILINE))
    assert verdict == {
        "pages fetched": "24 of 24",
        "runs repeated": str(running),
        "calls lost": "0",
        "rows stored": "24",
        "rows stored twice": "0",
    }
    calls = [json.loads(line) for line in shop.run("ls", "--db", "sqlite:///demo.db", "-o", "jsonl").lines]
    assert [call["state"] for call in calls] == ["succeeded"] * 24
    assert sum(call["crashes"] for call in calls) == running


def test_ctrl_c_leaves_the_rest_stored_and_no_worker_behind(shop: Shop) -> None:
    with started(*DEMO, "--kill", "--db", "sqlite:///demo.db", folder=shop.folder, env=shop.env) as running:
        running.until("pages at a time")
        worker = int(re.findall(r"worker (\d+) runs", running.err)[0])
        running.signal(signal.SIGINT)
        ran = running.ended()

    assert ran.code == 130
    assert "what is not fetched yet stays stored" in ran.err
    assert "Traceback" not in ran.err
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_a_terminal_shows_a_bar_that_gives_way_to_lines(shop: Shop) -> None:
    shown = on_terminal(shop, "demo")
    before, _, after = shown.partition("PAGE")

    assert "12/12 pages, 1 failed" in before
    assert "█" in before
    assert "\r\x1b[K" in before
    assert "\x1b[32m" in after
    assert "█" not in after
    plain = re.sub("\x1b\\[[0-9;]*[mK]", "", after)
    assert max(len(line) for line in plain.splitlines() if "sqlite:" not in line) <= 60
