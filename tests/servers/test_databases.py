"""A server gives each test a database, with a user who rules it and nothing else."""

from __future__ import annotations

import pytest

from tests.helpers.servers.server import Server, address
from tests.servers.clients import Lost, connect, run


def test_a_server_says_its_version(server: Server) -> None:
    [[told]] = server.execute("select version()")

    assert ".".join(map(str, server.version)) in told


def test_a_server_has_a_unix_socket_in_its_folder(server: Server) -> None:
    assert server.socket.is_socket() and server.socket.parent == server.folder


def test_the_user_of_a_database_may_do_everything_in_it(url: str) -> None:
    rows = run(
        url,
        "create table pages (name varchar(20) primary key)",
        "insert into pages values ('é🎉')",
        "alter table pages add column size int",
        "create index sizes on pages (size)",
        "select name, size from pages",
    )

    assert rows == [("é🎉", None)]


def test_the_user_of_a_database_may_do_nothing_beside_it(server: Server, url: str) -> None:
    other = server.database()
    foreign = address(other)._replace(netloc=address(url).netloc).geturl()
    run(other, "create table secrets (name varchar(20))")

    with pytest.raises(Exception, match=r"(?i)denied|permission"):
        run(foreign, "select * from secrets")
    with pytest.raises(Exception, match=r"(?i)denied|permission"):
        run(url, "create user more")

    server.drop(other)


def test_a_wrong_password_is_refused(url: str) -> None:
    wrong = url.replace(f":{address(url).password}@", ":wrong@")

    with pytest.raises(Lost, match=r"(?i)denied|authentication failed"):
        run(wrong, "select 1")


def test_databases_are_strangers_to_each_other(server: Server) -> None:
    one, two = server.database(), server.database()
    run(one, "create table pages (name varchar(20))")

    with pytest.raises(Exception, match="pages"):
        run(two, "select * from pages")

    server.drop(one)
    server.drop(two)


def test_a_database_is_dropped_under_an_open_transaction(server: Server) -> None:
    url = server.database()
    run(url, "create table pages (name varchar(20))")
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("insert into pages values ('a')")

        server.drop(url)

        with pytest.raises(Lost):
            cursor.execute("insert into pages values ('b')")
    with pytest.raises(Lost):
        run(url, "select 1")


def test_the_administrator_looks_into_any_database(server: Server, url: str) -> None:
    run(url, "create table pages (name varchar(20))", "insert into pages values ('a')")

    assert server.execute("select name from pages", database=url) == [("a",)]
    assert server.execute("delete from pages", database=url) == []
    assert run(url, "select name from pages") == []


def test_names_are_kept_in_utf8(mariadb_url: str, postgresql_url: str) -> None:
    assert run(mariadb_url, "select @@character_set_database") == [("utf8mb4",)]
    assert run(postgresql_url, "show server_encoding") == [("UTF8",)]
