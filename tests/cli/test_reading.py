"""`ls` and `show`: tables for humans, JSON for programs, and stores that cannot be read."""

from __future__ import annotations

import json
import re
import sqlite3

from everloop.cli.terminal import clean
from tests.cli.conftest import Shop
from tests.docs.blocks import ROOT

Filled = tuple[Shop, dict[str, str]]

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NO_ID = "0198c0de-0000-7000-8000-000000000001"


def documented() -> list[str]:
    """Return the fields of the two tables of docs/cli.md, in order."""
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8").partition("\n## JSON\n")[2]
    rows = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_json_has_the_documented_fields(filled: Filled) -> None:
    shop, ids = filled
    (listed,) = json.loads(shop.run("ls", "shop:app", "--tag", "a", "-o", "json").checked().out)
    shown = shop.show(ids["done"])

    assert list(shown) == documented()
    assert list(listed) == documented()[: len(listed)]
    assert {name: shown[name] for name in listed} == listed
    assert (shown["id"], shown["function"], shown["state"]) == (ids["done"], "add", "succeeded")
    assert (shown["args"], shown["kwargs"], shown["result"]) == ([1, 2], {}, 3)
    assert (shown["tags"], shown["attempts"], shown["crashes"]) == (["a", "b"], 1, 0)
    for name in ("created", "due", "started", "ended"):
        assert TIME.fullmatch(str(shown[name]))


def test_show_tells_of_every_run(filled: Filled) -> None:
    shop, ids = filled
    shown = shop.show(ids["failed"])
    history = shown["history"]
    assert isinstance(history, list)
    assert [(run["attempt"], run["kind"], run["reason"]) for run in history] == [
        (1, "failed", "ValueError: no \x1b[31mway\x9b1m"),
        (2, "failed", "ValueError: no \x1b[31mway\x9b1m"),
    ]
    assert (list(history[0]), shown["history_left_out"]) == (
        ["attempt", "kind", "started", "ended", "host", "pid", "session", "reason", "error"],
        0,
    )
    table = shop.run("show", "shop:app", ids["failed"]).checked().lines
    first, second = (line for line in table if " failed  2" in line)
    assert re.fullmatch(
        r"history     attempt 1 failed  \S+Z  on \S+, pid \d+  ValueError: no \[31mway1m", first
    )
    assert second.startswith("            attempt 2 failed  ")
    assert "history" not in shop.run("show", "shop:app", ids["done"]).checked().out


def test_jsonl_has_a_line_for_each_newest_first(filled: Filled) -> None:
    shop, ids = filled
    calls = [json.loads(line) for line in shop.run("ls", "shop:app", "-o", "jsonl").checked().lines]

    assert [call["id"] for call in calls] == [ids[n] for n in ("cancelled", "due", "mail", "failed", "done")]
    assert json.loads(shop.run("show", "shop:app", ids["due"], "-o", "jsonl").out)["key"] == "once"


def test_filters(filled: Filled) -> None:
    shop, ids = filled
    kinds: dict[tuple[str, ...], list[str]] = {
        ("--state", "failed,cancelled"): ["cancelled", "failed"],
        ("--state", "scheduled", "--state", "failed"): ["due", "failed"],
        ("--queue", "mail"): ["mail"],
        ("--name", "fail"): ["failed"],
        ("--tag", "b"): ["done"],
        ("--limit", "2"): ["cancelled", "due"],
        ("--tag", "none"): [],
    }
    listings = shop.run_each([["ls", "shop:app", "-o", "jsonl", *options] for options in kinds])

    for wanted, listed in zip(kinds.values(), listings, strict=True):
        assert [json.loads(line)["id"] for line in listed.checked().lines] == [ids[kind] for kind in wanted]


def test_pages_follow_each_other(filled: Filled) -> None:
    shop, ids = filled
    first = shop.run("ls", "shop:app", "--limit", "3").checked()
    hint = f"--before {ids['mail']}"

    assert hint in first.err
    rest = shop.run("ls", "shop:app", "-o", "jsonl", *hint.split()).checked()
    assert [json.loads(line)["id"] for line in rest.lines] == [ids["failed"], ids["done"]]
    assert shop.run("ls", "shop:app", "--before", NO_ID).code == 3


def test_a_store_is_read_without_an_app(filled: Filled) -> None:
    shop, ids = filled
    assert len(shop.run("ls", "--db", shop.store).checked().lines) == 6
    assert "add(1, 2)" in shop.run("show", "--db", shop.store, ids["done"]).checked().out
    both = shop.run("ls", "shop:app", "--db", shop.store)
    assert (both.code, "give an app or --db, not both" in both.err) == (2, True)


def test_tables_fit_the_terminal_and_are_whole_in_a_pipe(filled: Filled) -> None:
    shop, ids = filled
    for columns in (100, 60):
        lines = shop.run("ls", "shop:app", COLUMNS=str(columns)).checked().lines
        assert max(map(len, lines)) <= columns
        assert lines[-1].startswith(ids["done"])
    whole = shop.run("ls", "shop:app").checked().out
    assert "ValueError: no [31mway" in whole
    assert "#a #b" in whole


def test_stored_control_characters_are_not_printed(filled: Filled) -> None:
    shop, ids = filled
    for arguments in (["ls", "shop:app"], ["show", "shop:app", ids["failed"]]):
        for output in ("table", "json"):
            out = shop.run(*arguments, "-o", output, FORCE_COLOR="", NO_COLOR="1").checked().out
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)
    assert shop.show(ids["failed"])["args"] == ["no \x1b[31mway\x9b1m"]


def test_colours_are_forced_and_refused(filled: Filled) -> None:
    shop, _ = filled
    assert "\x1b[31mfailed" in shop.run("ls", "shop:app", FORCE_COLOR="1", NO_COLOR="").out
    assert "\x1b" not in shop.run("ls", "shop:app", FORCE_COLOR="1", NO_COLOR="1").out
    assert "\x1b" not in shop.run("ls", "shop:app", NO_COLOR="").out


def test_show_tells_everything_of_a_failure(filled: Filled) -> None:
    shop, ids = filled
    out = shop.run("show", "shop:app", ids["failed"]).checked().out

    assert re.search(r"^state +failed  \(2 attempts\)$", out, re.MULTILINE)
    assert re.search(r"^error +ValueError: no \[31mway1m$", out, re.MULTILINE)
    assert "raise ValueError(text)" in out
    error = shop.show(ids["failed"])["error"]
    assert isinstance(error, dict)
    assert (error["type"], error["module"]) == ("ValueError", "builtins")


def test_show_tells_what_is_to_come(filled: Filled) -> None:
    shop, ids = filled
    out = shop.run("show", "shop:app", ids["due"]).checked().out

    assert re.search(r"^due .*\(in (59|60) min\)$|^due .*\(in 1 h\)$", out, re.MULTILINE)
    assert re.search(r"^args +add\(3, 4\)$", out, re.MULTILINE)
    assert shop.show(ids["cancelled"])["state"] == "cancelled"


def test_an_unknown_id(filled: Filled) -> None:
    shop, _ = filled
    for id_ in (NO_ID, "nonsense"):
        ran = shop.run("show", "shop:app", id_)
        assert (ran.code, ran.out) == (3, "")
        assert f"no call has the id '{id_}'" in ran.err


def test_an_empty_store(shop: Shop) -> None:
    ran = shop.run("ls", "shop:app").checked()

    assert (ran.out, ran.err) == ("", "everloop: no calls\n")
    assert shop.run("ls", "shop:app", "-o", "json").checked().out == "[]\n"


def test_stores_that_cannot_be_read(shop: Shop) -> None:
    with sqlite3.connect(shop.folder / "newer.db") as connection:
        connection.execute("CREATE TABLE ever_meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
        connection.execute("INSERT INTO ever_meta VALUES ('schema', 999)")
    connection.close()

    unusable = {
        ("ls", "--db", "sqlite:///typo.db"): "there is no store at",
        ("ls", "--db", "sqlite:////nowhere/x.db"): "there is no store at",
        ("ls", "--db", "sqlite:///shop.py"): "is not an SQLite database",
        ("ls", "--db", "sqlite:///newer.db"): "upgrade it",
    }
    misspelt = {
        ("ls", "--db", "shop.db"): "for a file write sqlite:///shop.db",
        ("ls", "--db", "sqlit:///shop.db"): "did you mean 'sqlite'?",
        ("ls", "--db", "memory://"): "lives inside one process",
    }
    shop.check_refusals(4, unusable)
    shop.check_refusals(2, misspelt)
    assert not (shop.folder / "typo.db").exists()


def test_clean_keeps_words_apart() -> None:
    assert clean("a\tb\nc\x1b]0;title\x07\u202e") == "a   b c]0;title"
    assert clean("a\r\nb\x9b", lines=True) == "a\nb"
