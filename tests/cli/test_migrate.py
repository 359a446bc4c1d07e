"""`everloop migrate`: what is missing, named, printed and applied."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import psycopg
import pytest

from everloop.store.sql.dialect import migrations
from everloop.store.sql.mysql_address import address_of
from everloop.store.sql.runners.mysql_connection import connect
from everloop.store.url import sqlite_path, store_from_url
from tests.cli.conftest import Shop
from tests.helpers.servers.fixtures import mariadb, mariadb_url, postgresql, postgresql_url

__all__ = ["mariadb", "mariadb_url", "postgresql", "postgresql_url"]

SERVERS = ("mariadb", "postgresql")


@pytest.fixture(params=["sqlite", *(pytest.param(name, marks=pytest.mark.server) for name in SERVERS)])
def url(request: pytest.FixtureRequest, shop: Shop) -> str:
    if request.param == "sqlite":
        return shop.store
    return str(request.getfixturevalue(f"{request.param}_url"))


def test_what_reads_makes_no_schema(shop: Shop, url: str) -> None:
    read = shop.run("ls", "--db", url)
    assert (read.code, read.out) == (4, "")
    assert "there is no store " in read.err
    assert shop.run("migrate", url, "--check").code == 1


def test_a_database_is_brought_up_to_date(shop: Shop, url: str) -> None:
    known = migrations(store_from_url(url).dialect)  # type: ignore[attr-defined] # all of these are in SQL
    names, newest = ", ".join(f"{each.number:04d}_{each.name}" for each in known), known[-1].number
    check = shop.run("migrate", url, "--check")
    assert (check.code, check.out) == (1, f"no schema yet; missing: {names}\n")
    assert shop.run("migrate", url, "--plan").checked().out == check.out

    assert shop.run("migrate", url).checked().out == f"applied {names}\n"
    assert shop.run("migrate", url).checked().out == f"schema {newest}; nothing is missing\n"
    assert shop.run("migrate", url, "--check").checked().out == f"schema {newest}; nothing is missing\n"
    assert shop.run("migrate", url, "--sql").checked().out == ""
    assert shop.run("ls", "--db", url).code == 0


def test_the_printed_statements_make_the_schema_by_hand(shop: Shop, url: str) -> None:
    script = shop.run("migrate", url, "--sql").checked().out
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(sqlite_path(url))) as connection:
            connection.executescript(script)
    elif url.startswith("postgresql"):
        with psycopg.connect(url) as theirs:
            theirs.execute(script.encode())
    else:
        with closing(connect(address_of(url))) as mine:
            mine.run(script.rstrip().removesuffix(";"), "by hand")

    assert "; nothing is missing\n" in shop.run("migrate", url, "--check").checked().out
    submitted = shop.run("submit", "shop:app", "add", "[1]", EVERLOOP_STORE=url).checked().out.strip()
    assert submitted in shop.run("ls", "--db", url).checked().out


def test_what_has_no_schema_is_refused(shop: Shop) -> None:
    shop.check_refusals(2, {("migrate", "memory://"): "memory:// has no schema: there is nothing to migrate"})
    shop.check_refusals(2, {("migrate", "postgresq://x/y"): "did you mean 'postgresql'?"})
