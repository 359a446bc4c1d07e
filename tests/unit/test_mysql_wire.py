"""What is sent to MySQL and read from it, packet by packet; the server is the other end of two sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any

import pymysql
import pytest
from pymysql.constants import FIELD_TYPE, SERVER_STATUS

from everloop.store.sql.runners import mysql_wire
from everloop.store.sql.runners.mysql_wire import Rows, Wire

MORE = SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS
TEXT, NUMBER = FIELD_TYPE.VAR_STRING, FIELD_TYPE.LONGLONG


class Scene:
    """A wire, and the server at its other end."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        ours.settimeout(5)
        self.theirs.settimeout(5)
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.line = ours
        self.wire = Wire(ours, 0)
        self.number = 1

    def close(self) -> None:
        self.line.close()
        self.theirs.close()

    def asks(self, query: bytes = b"SELECT 1") -> bytes:
        """Send a query; return what the server receives."""
        self.wire.ask(query)
        self.number = 1
        return self.theirs.recv(1 << 20)

    def says(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.theirs.sendall(len(payload).to_bytes(3, "little") + bytes((self.number % 256,)) + payload)
            self.number += 1

    def answers(self) -> list[Rows]:
        return list(self.wire.results())


@pytest.fixture
def scene() -> Iterator[Scene]:
    with closing(Scene()) as scene:
        yield scene


def ok(status: int = 0) -> bytes:
    return b"\x00\xfc\x10\x27\x01" + status.to_bytes(2, "little") + b"\x00\x00"  # 10,000 rows changed


def end(status: int = 0) -> bytes:
    return b"\xfe\x00\x00" + status.to_bytes(2, "little")


def column(kind: int) -> bytes:
    names = b"".join(bytes((len(name),)) + name for name in (b"def", b"db", b"t", b"t", b"column", b"column"))
    return names + b"\x0c\x2d\x00\x00\x00\x00\x00" + bytes((kind,)) + b"\x00\x00\x00\x00\x00"


def row(*values: str | None) -> bytes:
    said = b""
    for value in values:
        if value is None:
            said += b"\xfb"
            continue
        text = value.encode()
        if len(text) < 251:
            said += bytes((len(text),)) + text
        elif len(text) < 1 << 16:
            said += b"\xfc" + len(text).to_bytes(2, "little") + text
        else:
            said += b"\xfd" + len(text).to_bytes(3, "little") + text
    return said


def table(kinds: Sequence[int], *rows: bytes, status: int = 0) -> list[bytes]:
    return [bytes((len(kinds),)), *map(column, kinds), end(), *rows, end(status)]


def failure(code: int, said: str) -> bytes:
    return b"\xff" + code.to_bytes(2, "little") + b"#HY000" + said.encode()


def test_the_statements_of_a_query_answer_one_after_the_other(scene: Scene) -> None:
    assert scene.asks(b"one;two;three") == b"\x0e\x00\x00\x00\x03one;two;three"
    scene.says(ok(MORE), *table([NUMBER, TEXT], row("7", "x"), row(None, ""), status=MORE), ok(0x0200))

    assert scene.answers() == [[], [(7, "x"), (None, "")], []]
    assert scene.wire.status == 0x0200
    scene.asks()
    scene.says(*table([NUMBER]))
    assert scene.answers() == [[]]


@pytest.mark.parametrize(
    ("kind", "said", "read"),
    [
        (FIELD_TYPE.TINY, "-1", -1),
        (FIELD_TYPE.LONGLONG, "9223372036854775807", 9223372036854775807),
        (FIELD_TYPE.DOUBLE, "1e-3", 0.001),
        (FIELD_TYPE.NEWDECIMAL, "1.50", Decimal("1.50")),
        (FIELD_TYPE.BLOB, "é😀", "é😀"),
        (FIELD_TYPE.STRING, "x" * 250, "x" * 250),
        (FIELD_TYPE.VAR_STRING, "x" * 251, "x" * 251),
        (FIELD_TYPE.LONG_BLOB, "é" * 40_000, "é" * 40_000),
        (FIELD_TYPE.BLOB, "\xfe\xff", "\xfe\xff"),
    ],
)
def test_values_are_read_as_what_their_column_is(scene: Scene, kind: int, said: str, read: Any) -> None:
    scene.asks()
    scene.says(*table([kind, NUMBER], row(said, "1"), row(None, "2")))
    assert scene.answers() == [[(read, 1), (None, 2)]]


def test_an_answer_may_come_in_any_pieces(scene: Scene) -> None:
    scene.asks()
    scene.says(*table([TEXT, NUMBER], row("x" * 300, "5"), status=MORE), ok())
    whole = scene.line.recv(1 << 16)
    for size in (1, 3, 7):
        ours, theirs = socket.socketpair()
        with closing(ours), closing(theirs):
            wire = Wire(Pieces(ours, size), 0)  # type: ignore[arg-type] # as much of a socket as is used
            wire.ask(b"SELECT 1")
            theirs.sendall(whole)
            assert list(wire.results()) == [[("x" * 300, 5)], []]


class Pieces:
    """A socket that receives a few bytes at a time."""

    def __init__(self, line: socket.socket, size: int) -> None:
        self._line, self._size = line, size
        self.sendall = line.sendall

    def recv(self, _: int) -> bytes:
        return self._line.recv(self._size)


def test_a_failure_ends_the_answer_and_not_the_connection(scene: Scene) -> None:
    scene.asks()
    scene.says(ok(MORE), failure(1213, "Deadlock found"))
    results = scene.wire.results()
    assert next(results) == []
    with pytest.raises(pymysql.err.OperationalError, match="Deadlock found") as caught:
        next(results)
    assert caught.value.args == (1213, "Deadlock found")

    scene.asks()
    scene.says(bytes((1,)), column(NUMBER), end(), row("1"), failure(1317, "Query execution was interrupted"))
    with pytest.raises(pymysql.err.OperationalError, match="interrupted"):
        scene.answers()
    scene.asks()
    scene.says(ok())
    assert scene.answers() == [[]]


def test_packets_are_counted_anew_after_256(scene: Scene) -> None:
    scene.asks()
    scene.says(*table([NUMBER], *(row(str(n)) for n in range(300)), status=MORE), ok())
    assert scene.answers() == [[(n,) for n in range(300)], []]


def test_a_sleep_that_was_ended_is_told_without_an_exception(scene: Scene) -> None:
    for last, ended in ((failure(1317, "Query execution was interrupted"), True), (end(0x0200), False)):
        scene.asks()
        scene.says(*table([NUMBER], row("1"), status=MORE), *table([NUMBER], row("0"))[:-1], last)
        assert next(scene.wire.results()) == [(1,)]
        assert scene.wire.is_interrupted() is ended
    assert scene.wire.status == 0x0200

    scene.asks()
    scene.says(bytes((1,)), column(NUMBER), end(), failure(1053, "Server shutdown in progress"))
    with pytest.raises(pymysql.err.OperationalError, match="shutdown"):
        scene.wire.is_interrupted()


def test_what_is_larger_than_a_packet_is_sent_and_read_in_several(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_wire, "LARGEST", 8)
    assert scene.asks(b"1234567") == b"\x08\x00\x00\x00\x031234567" + b"\x00\x00\x00\x01"
    scene.number = 2
    scene.says(b"\x01", *cut(column(TEXT)), end(), *cut(row("abcdefghijkl")), *cut(row("abcdefg")), end())
    assert scene.answers() == [[("abcdefghijkl",), ("abcdefg",)]]
    assert scene.asks(b"123456789") == b"\x08\x00\x00\x00\x031234567\x02\x00\x00\x0189"


def cut(payload: bytes) -> list[bytes]:
    return [payload[start : start + 8] for start in range(0, len(payload) + 1, 8)]


def test_a_connection_that_ends_within_an_answer_is_not_used_again(scene: Scene) -> None:
    scene.asks()
    scene.says(ok(MORE))
    scene.theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(pymysql.err.OperationalError, match="has closed the connection") as caught:
        scene.answers()
    assert caught.value.args[0] == 2013
    with pytest.raises(pymysql.err.OperationalError, match="the connection is closed") as caught:
        scene.wire.ask(b"SELECT 1")
    assert caught.value.args[0] == 2006


def test_a_server_that_says_nothing_is_given_up(scene: Scene) -> None:
    scene.line.settimeout(0.01)
    scene.asks()
    with pytest.raises(pymysql.err.OperationalError, match=r"said nothing more \(timed out\)"):
        scene.answers()


def test_nothing_can_be_asked_before_the_answer_has_been_read(scene: Scene) -> None:
    scene.asks()
    with pytest.raises(pymysql.err.OperationalError, match="the connection is closed"):
        scene.wire.ask(b"SELECT 2")


def test_a_reply_to_something_else_is_refused(scene: Scene) -> None:
    scene.asks()
    scene.number = 5
    scene.says(ok())
    with pytest.raises(pymysql.err.InternalError, match="packet 5 came in place of 1"):
        scene.answers()
    with pytest.raises(pymysql.err.OperationalError, match="the connection is closed"):
        scene.wire.ask(b"SELECT 1")


def test_what_the_server_says_unasked_ends_the_connection(scene: Scene) -> None:
    scene.asks()
    scene.number = 0
    scene.says(failure(1927, "Connection was killed"))
    with pytest.raises(pymysql.err.OperationalError, match="Connection was killed"):
        scene.answers()
    with pytest.raises(pymysql.err.OperationalError, match="the connection is closed"):
        scene.wire.ask(b"SELECT 1")


def test_a_server_that_wants_a_file_gets_none(scene: Scene) -> None:
    scene.asks()
    scene.says(b"\xfb/etc/passwd")
    with pytest.raises(pymysql.err.InternalError, match="sent 0xfb in place of a length"):
        scene.answers()
