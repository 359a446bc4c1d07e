"""What the store asks of a MySQL server: a schema, indexes, TLS, and room for a request."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql
import pymysql.cursors
import pytest

from everloop import ConfigError, SchemaError, StoreError, StoreUnavailable
from everloop._core.clock import LAST
from everloop._core.records import KeyRule
from everloop.store.sql.dialect import migrations, split, statements
from everloop.store.sql.mysql import MysqlStore
from everloop.store.sql.mysql_address import address_of
from everloop.store.sql.runners import mysql_connection
from everloop.store.sql.runners.mysql_connection import MysqlConnection, connect
from everloop.store.sql.runners.mysql_texts import render
from everloop.store.sql.verbs.statement import Statement
from tests.helpers.mysql import call
from tests.helpers.servers.fixtures import required
from tests.helpers.servers.mariadb import MariaServer
from tests.helpers.servers.place import temporary

pytestmark = pytest.mark.server


# -- indexes ------------------------------------------------------------------------------------------------

FINISHED = 1_000_000
#: What a turn executes, and how many rows it may read at most, whatever else there is.
READS: list[tuple[str, dict[str, Any], int]] = [
    ("look", {"session": 1, "now": 5, "lanes": [1, 2], "due_from": 0, "expires_from": 0}, 30),
    ("look", {"session": 1, "now": 5, "lanes": [], "due_from": 150, "expires_from": LAST}, 30),
    ("due_next", {"due_from": 0}, 30),
    ("due_next", {"due_from": 150}, 30),
    ("lease_pick", {"lanes": [1], "room": 10}, 30),
    ("lease_pick", {"lanes": [1, 2, 3], "room": 10}, 150),
    ("lease_pick_children", {"lanes": [1, 2, 3], "room": 10}, 150),
    ("lease_pick_suspect", {"lanes": [1], "depth": 0}, 30),
    (
        "lease_lately",
        {"lanes": [1], "room": 10, "depth": 0, "since": FINISHED + 1_950, "now": 5, "most": 99},
        150,
    ),
    (
        "lease_lately",
        {"lanes": [1, 2, 3], "room": 10, "depth": 1, "since": FINISHED + 1_950, "now": 5, "most": 99},
        150,
    ),
    ("lease_take", {"seqs": [FINISHED + 1, FINISHED + 2], "session": 1, "now": 5}, 30),
    ("lease_alone", {"lanes": [1, 2], "session": 9, "now": 5}, 30),
    ("lease_few", {"lanes": [1], "room": 10, "session": 9, "now": 5}, 80),
    ("lease_few_take", {"session": 9, "now": 5}, 80),  # of what has just been picked
    ("lease_few", {"lanes": [1, 2], "room": 10, "session": 9, "now": 5}, 120),
    (
        "lease_few_lately",
        {"lanes": [1, 2], "room": 10, "most": 11, "since": FINISHED + 1_950, "session": 9, "now": 5},
        150,
    ),
    (
        "settle_few",
        {"n": 2, "seqs": [7, 8], "waiter": 9, "session": 9, "now": 5, "values": {7: "j", 8: "j"}},
        30,
    ),
    ("tell_few", {"seqs": [7, 8], "waiter": 9}, 30),
    ("due_ready", {"now": 5, "due_from": 0}, 30),
    ("expire_match", {"now": 5}, 30),
    ("settle_match", {"rows": [[0, f"{FINISHED + 1}", 0]]}, 30),
    ("settle_match", {"rows": [[0, f"{FINISHED + 1}", 0], [1, f"{FINISHED + 2}", 0]]}, 30),
    ("settle_held", {"rows": [[0, f"{FINISHED + 1}", 0]]}, 30),
    ("succeed", {"seqs": [7, 8]}, 30),
    ("end_wake", {"seqs": [7, 8], "now": 5}, 30),
    ("end_children", {"rows": [[7, 1]]}, 30),
    ("add_existing", {"ids": ["7", "8"]}, 30),
    ("add_children", {"rows": [[0, 7, "x"]]}, 30),
    ("cancel_match", {"ids": ["7", "8"]}, 30),
    ("cancel_parents", {"ids": ["7", "8"]}, 30),
    ("session_leases", {"session": 9}, 30),
    ("inbox_read", {"session": 9, "most": 100}, 30),
    ("inbox_take", {"session": 9, "rows": [[7, "ended"], [8, "cancel"]]}, 30),
    ("read_calls", {"ids": ["7", "8"]}, 30),
]


@pytest.mark.usefixtures("mysql_store")
async def test_no_statement_of_a_turn_reads_a_million_calls_that_have_ended(side: MysqlConnection) -> None:
    numbers = f"WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {FINISHED})"
    deep = "max_recursive_iterations" if "MariaDB" in side.version else "cte_max_recursion_depth"
    side.run(
        f"SET {deep} = {2 * FINISHED};\n"
        "INSERT INTO ever_calls (seq, id, lane, state, place, root, due) "
        f"{numbers} SELECT i, i, 1 + i MOD 3, 'succeeded', i, i, i FROM n;\n"
        "INSERT INTO ever_calls (seq, id, lane, state, place, root, due, level, crashes) "
        f"{numbers} SELECT {FINISHED} + i, {FINISHED} + i, 1 + i MOD 3, IF(i MOD 5, 'ready', 'scheduled'), "
        "i, i, 100 + i, -(i MOD 2), IF(i MOD 50, 0, 2) FROM n WHERE i <= 2000;\n"
        "INSERT INTO ever_payloads (seq, args, policy, created) SELECT seq, 'j', '', 1 FROM ever_calls",
        "filling",
    )
    # MySQL counts more for the same plan: the rows of tables that it makes for a statement, too.
    times = 1 if "MariaDB" in side.version else 3
    read = [
        (name, rows_read(side, Statement(name, parameters)), most * times) for name, parameters, most in READS
    ]
    assert [(name, number, most) for name, number, most in read if number > most] == []
    for lanes in [1], [1, 2]:
        keys = [row["key"] for row in heads(side, "lease_pick", lanes)]
        assert keys == ["ever_calls_ready"] * len(lanes)


def rows_read(side: MysqlConnection, statement: Statement) -> int:
    """Execute it, roll back, and return how many rows the server has read for it."""
    count = "SHOW SESSION STATUS LIKE 'Handler_read%'"
    parts = render(side, statement, statements("mysql")[statement.name])
    _, first, before, *_, after = side.run(
        ";\n".join(["START TRANSACTION", count, count, *parts, count]), statement.name
    )
    side.run("ROLLBACK", statement.name)
    start, one, end = (sum(int(number) for _, number in rows) for rows in (first, before, after))
    return end - one - (one - start)  # without what the counting reads


@pytest.mark.usefixtures("mysql_store")
async def test_the_head_of_a_line_is_read_in_the_order_of_its_index(side: MysqlConnection) -> None:
    side.run(
        "INSERT INTO ever_calls (seq, id, lane, state, place, root, due) WITH RECURSIVE n AS (SELECT 1 AS i "
        "UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT i, i, 1 + i MOD 3, 'ready', i, i, i FROM n;\n"
        "ANALYZE TABLE ever_calls",
        "filling",
    )
    for name, index in (
        ("lease_pick", "ever_calls_ready"),
        ("lease_pick_children", "ever_calls_ready_child"),
    ):
        for lanes in [1], [1, 2]:
            found = heads(side, name, lanes)
            assert [(row["type"], row["key"]) for row in found] == [("ref", index)] * len(lanes)
            assert not any("filesort" in row["Extra"] for row in found)


def heads(side: MysqlConnection, name: str, lanes: list[int]) -> list[dict[str, str]]:
    """Return what the plan of a pick says of each line that it looks into."""
    (pick,) = render(side, Statement(name, {"lanes": lanes, "room": 10}), statements("mysql")[name])
    return [row for row in explained(side, pick) if row["table"] in ("ever_calls", "c")]


def explained(side: MysqlConnection, query: str) -> list[dict[str, str]]:
    """Return the rows of the query's plan, by the names that the server gives their columns."""
    with side._raw.cursor(pymysql.cursors.DictCursor) as cursor:
        cursor.execute(f"EXPLAIN FORMAT=TRADITIONAL {query}")
        return [{name: str(value) for name, value in row.items()} for row in cursor.fetchall()]


# -- what is refused ----------------------------------------------------------------------------------------


async def test_a_schema_that_was_left_half_made_is_completed(mariadb: MariaServer) -> None:
    parts = split(migrations("mysql")[0][2])
    for done in (0, 1, 4, len(parts) // 2, len(parts)):
        url = mariadb.database()
        with closing(connect(address_of(url))) as connection:
            for part in parts[:done]:
                connection.run(part, "making a part")
        stores = [MysqlStore(url), MysqlStore(url)]
        await asyncio.gather(*(store.open() for store in stores))  # both at once
        assert [answer.status for answer in await stores[0].add(None, [call(1, key=KeyRule("k"))])] == [
            "added"
        ]
        assert [answer.status for answer in await stores[1].add(None, [call(2, key=KeyRule("k"))])] == [
            "exists"
        ]
        buckets = "SELECT count(*) FROM ever_key_locks"
        assert mariadb.execute(buckets, database=url) == [(65_536,)]
        for store in stores:
            await store.close()
        mariadb.drop(url)


async def test_a_schema_of_a_later_version_is_refused(mysql_store: MysqlStore, side: MysqlConnection) -> None:
    side.run("UPDATE ever_meta SET value = 99 WHERE name = 'schema'", "making it newer")
    with pytest.raises(SchemaError) as caught:
        await mysql_store.twin().open()
    assert str(caught.value) == (
        "the store has schema 99, but this version of Everloop knows 3; upgrade it "
        "(pip install -U everloop). Nothing has been changed"
    )


async def test_tables_without_transactions_are_refused(
    mysql_store: MysqlStore, side: MysqlConnection
) -> None:
    side.run("ALTER TABLE ever_waits ENGINE=MyISAM", "making it worse")
    with pytest.raises(ConfigError) as caught:
        await mysql_store.twin().open()
    assert str(caught.value) == (
        "Everloop's tables must be in InnoDB, which has transactions; these are not: ever_waits (MyISAM). "
        "ALTER TABLE ... ENGINE=InnoDB changes that"
    )


async def test_a_server_without_tls_is_refused_when_tls_was_asked_for(mariadb_url: str) -> None:
    with pytest.raises(ConfigError, match="the store's URL asks for TLS, but the server does not speak it"):
        await MysqlStore(f"{mariadb_url}?ssl=true").open()


async def test_a_connection_that_is_not_encrypted_is_found_out(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As PyMySQL did before 1.2, and aiomysql does: it falls back without a word.
    monkeypatch.setattr(mysql_connection, "_log_in", _without_tls(mysql_connection._log_in))
    with pytest.raises(ConfigError, match="asks for TLS, but the server does not speak it"):
        await MysqlStore(f"{mariadb_url}?ssl=true").open()


def _without_tls(log_in: Any) -> Any:
    return lambda address, patience, _tls: log_in(address, patience, None)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MariaServer, Path]]:
    """A server that speaks TLS, and takes packets of a megabyte at most; and its certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate, and is not installed")
    with tempfile.TemporaryDirectory(dir=temporary()) as name:
        folder = Path(name)
        folder.chmod(0o755)
        subject = ["-subj", "/CN=everloop", "-addext", "subjectAltName=IP:127.0.0.1"]
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        made = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
        subprocess.run(["openssl", "req", "-x509", *new, *subject, *made], check=True, capture_output=True)
        (folder / "key.pem").chmod(0o644)  # of no worth; the server's user has to read it
        server = required(MariaServer)
        server.settings |= {
            "ssl-cert": str(folder / "cert.pem"),
            "ssl-key": str(folder / "key.pem"),
            "max-allowed-packet": 1_048_576,
        }
        with server:
            yield server, folder / "cert.pem"


async def test_tls_is_spoken_where_it_can_be(small: tuple[MariaServer, Path]) -> None:
    server, certificate = small
    url = server.database()
    query = "SHOW SESSION STATUS LIKE 'Ssl_cipher'"
    for parameters, encrypted in (
        ("", True),
        ("?ssl_verify=false", True),
        (f"?ssl_ca={certificate}", True),
        ("?ssl=false", False),
    ):
        with closing(connect(address_of(url + parameters))) as connection:
            assert bool(connection.run(query, "looking")[0][0][1]) is encrypted
    with pytest.raises(ConfigError) as caught:
        await MysqlStore(f"{url}?ssl=true").open()
    assert str(caught.value).endswith(
        ". The server's certificate does not prove who it is: give the authority that has signed it, "
        "ssl_ca=/path/ca.pem; ssl_check_hostname=false leaves its name out, and with ssl_verify=false the "
        "connection is encrypted for whoever answers"
    )
    stranger = certificate.with_name("stranger.pem")
    stranger.write_text("no certificate", encoding="utf-8")
    with pytest.raises(ConfigError, match="the files of TLS cannot be used"):
        MysqlStore(f"{url}?ssl_ca={stranger}")
    with pytest.raises(StoreError, match="certificate"):
        connect(address_of(f"{url.replace('127.0.0.1', 'localhost')}?ssl_ca={certificate}"))


async def test_a_request_that_is_too_large_is_refused_and_the_next_one_is_not(
    small: tuple[MariaServer, Path],
) -> None:
    server, _ = small
    store = MysqlStore(server.database())
    await store.open()
    with pytest.raises(StoreError) as caught:
        await store.add(None, [call(n, args=b"j" + b"x" * 300_000) for n in range(4)])
    assert not isinstance(caught.value, StoreUnavailable)
    assert re.fullmatch(
        r"the request needs a packet of 1,\d{3},\d{3} bytes, but the server takes 1,048,576; set its "
        r"max_allowed_packet higher, or let calls and results carry less",
        str(caught.value),
    )
    for n in range(4):  # as the turn loop does: in halves
        assert (await store.add(None, [call(n, args=b"j" + b"x" * 300_000)]))[0].status == "added"
    await store.close()


async def test_a_user_without_rights_on_the_tables_is_told_what_to_grant(
    mysql_store: MysqlStore, mariadb: MariaServer, mariadb_url: str
) -> None:
    user = address_of(mariadb_url).user
    mariadb.execute(f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM '{user}'@'%'")
    mariadb.execute(f"GRANT SELECT ON {address_of(mariadb_url).database}.* TO '{user}'@'%'")
    twin = mysql_store.twin()
    await twin.open()
    try:
        with pytest.raises(StoreError, match="GRANT SELECT, INSERT, UPDATE, DELETE ON the_") as caught:
            await twin.add(None, [call(1)])
        assert "command denied" in str(caught.value)
    finally:
        await twin.close()
        mariadb.execute(f"GRANT ALL ON {address_of(mariadb_url).database}.* TO '{user}'@'%'")


async def test_tables_from_before_the_first_release_are_not_used(
    mysql_store: MysqlStore, side: MysqlConnection
) -> None:
    side.run("DROP TABLE ever_calls", "making it older")
    side.run("CREATE TABLE ever_calls (seq BIGINT PRIMARY KEY, state VARCHAR(9) NOT NULL)", "making it older")
    with pytest.raises(SchemaError, match=r"from before the first release, .* an empty database$"):
        await mysql_store.twin().open()
