"""`doctor`: a store that is well, and one that is not."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Shop
from tests.helpers.servers.fixtures import mariadb, mariadb_url, postgresql, postgresql_url

__all__ = ["mariadb", "mariadb_url", "postgresql", "postgresql_url"]


SETTINGS = {
    "sqlite": {"journal_mode": "ok", "synchronous": "ok"},
    "postgresql": {"fsync": "wrong", "full_page_writes": "wrong", "synchronous_commit": "wrong"},
    "mariadb": {"innodb_flush_log_at_trx_commit": "wrong", "innodb_doublewrite": "wrong"},
}


@pytest.mark.parametrize(
    "server",
    ["sqlite", *(pytest.param(name, marks=pytest.mark.server) for name in ("postgresql", "mariadb"))],
)
def test_a_checkup(shop: Shop, server: str, request: pytest.FixtureRequest) -> None:
    if server != "sqlite":
        shop.env["EVERLOOP_STORE"] = shop.store = str(request.getfixturevalue(f"{server}_url"))
    shop.run("submit", "shop:app", "add", "[1]").checked()
    ran = shop.run("doctor", "shop:app", "-o", "json")
    found = json.loads(ran.out)
    assert ran.code == 1
    wrong = {(each["where"], each["what"].partition(":")[0]) for each in found if each["level"] == "wrong"}
    assert ("workers", "no worker is running") in wrong
    assert ("waiting", "no worker serves 'add' in queue 'default'") in wrong
    assert {"store", "setting", "clock", "workers", "waiting", "leases", "keeping"} == {
        each["where"] for each in found
    }
    assert "with schema 3" in found[0]["what"]
    assert ":secret@" not in ran.out
    # The servers of the tests do not wait for the disk, and are told so.
    known = {each["what"].partition(" is ")[0]: each["level"] for each in found if each["where"] == "setting"}
    assert known == SETTINGS[server]

    table = shop.run("doctor", "--db", shop.store)
    assert table.code == 1
    assert table.lines[0].startswith("ok     store     ")
    assert any(line.startswith("wrong  workers   no worker is running") for line in table.lines)
    assert any(line.strip() == "-> run everloop worker module:app" for line in table.lines)


def test_a_worker_makes_it_well(shop: Shop) -> None:
    with shop.worker():
        ran = shop.run("doctor", "shop:app", "-o", "jsonl")
    found = [json.loads(line) for line in ran.lines]
    assert [each for each in found if each["level"] == "wrong"] == []
    assert ran.code == 0
    assert any(each["what"].startswith("1 worker in the queues default, mail") for each in found)


def test_a_store_that_cannot_be_opened(shop: Shop) -> None:
    missing = f"sqlite:///{shop.folder}/nowhere.db"
    shop.check_refusals(4, {("doctor", "--db", missing): "there is no store at"})
