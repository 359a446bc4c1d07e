"""Help, versions, near misses, and a start that imports little."""

from __future__ import annotations

from everloop import __version__
from everloop.cli.exits import TEXTS
from everloop.cli.group import COMMANDS
from tests.cli.conftest import Shop
from tests.docs.blocks import ROOT
from tests.helpers.processes import run_program

HEAVY = ("aiohttp", "asyncio", "sqlalchemy", "sqlite3", "uvloop", "everloop._app")


def test_help_lists_the_commands_and_imports_none(shop: Shop) -> None:
    shown = run_program("-X", "importtime", "-m", "everloop", "--help", folder=shop.folder).checked()
    imported = {line.rpartition("|")[2].strip() for line in shown.err.splitlines()}

    assert all(f"\n  {name} " in shown.out for name in COMMANDS)
    assert imported & set(HEAVY) == set()


def test_each_help_ends_with_exit_codes_and_an_example(shop: Shop) -> None:
    for name, ran in zip(COMMANDS, shop.run_each([[name, "--help"] for name in COMMANDS]), strict=True):
        codes, _, example = ran.checked().out.partition("Exit codes:\n")[2].partition("\nExample:\n")
        assert "0 " in codes
        assert example.startswith(f"  everloop {name}")


def test_exit_codes_are_documented() -> None:
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")

    assert [f"\n| {code} | " in text for code in TEXTS] == [True] * len(TEXTS)


def test_version(shop: Shop) -> None:
    assert shop.run("--version").checked().out == f"everloop {__version__}\n"


def test_nothing_at_all_shows_the_help_and_is_wrong_usage(shop: Shop) -> None:
    ran = shop.run()

    assert (ran.code, ran.out) == (2, "")
    assert "Commands:" in ran.err


def test_misspelt(shop: Shop) -> None:
    said = {
        ("sumbit",): "there is no command 'sumbit'; did you mean 'submit'?",
        ("worker", "--concurency", "3"): "there is no option '--concurency'; did you mean '--concurrency'?",
        ("ls", "shop:app", "--state", "faild"): "there is no state 'faild'; did you mean 'failed'?",
        ("ls", "-o", "yaml"): "'yaml' is not one of 'table', 'json', 'jsonl'",
        ("show",): "Missing argument '[APP] ID'",
        ("worker", "shop:app", "--queues", ","): "--queues names none",
    }
    shop.check_refusals(2, said)
