"""`everloop migrate`: what is missing, named, printed and applied."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from everloop.store.sql.dialect import migrations
from tests.cli.conftest import Shop
from tests.helpers.servers.fixtures import mariadb, mariadb_url, postgresql, postgresql_url

__all__ = ["mariadb", "mariadb_url", "postgresql", "postgresql_url"]

SERVERS = ("mariadb", "postgresql")


@pytest.fixture(params=["sqlite", *(pytest.param(name, marks=pytest.mark.server) for name in SERVERS)])
def url(request: pytest.FixtureRequest, shop: Shop) -> str:
    if request.param == "sqlite":
        return shop.store
    return str(request.getfixturevalue(f"{request.param}_url"))


def test_a_database_is_brought_up_to_date(shop: Shop, url: str) -> None:
    check = shop.run("migrate", url, "--check")
    assert (check.code, check.out) == (1, "no schema yet; missing: 0001_calls\n")
    assert shop.run("migrate", url, "--plan").checked().out == check.out

    assert shop.run("migrate", url).checked().out == "applied 0001_calls\n"
    assert shop.run("migrate", url).checked().out == "schema 1; nothing is missing\n"
    assert shop.run("migrate", url, "--check").checked().out == "schema 1; nothing is missing\n"
    assert shop.run("migrate", url, "--sql").checked().out == ""
    assert shop.run("ls", "--db", url).code == 0


def test_the_printed_statements_make_the_schema(shop: Shop) -> None:
    script = shop.run("migrate", shop.store, "--sql").checked().out
    assert script.startswith("-- 0001_calls\nCREATE TABLE ever_meta")

    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(script)
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert ("ever_calls",) in tables
    assert [number for number, _, _ in migrations("sqlite")] == [1]


def test_what_has_no_schema_is_refused(shop: Shop) -> None:
    shop.check_refusals(2, {("migrate", "memory://"): "memory:// has no schema: there is nothing to migrate"})
    shop.check_refusals(2, {("migrate", "postgresq://x/y"): "did you mean 'postgresql'?"})
