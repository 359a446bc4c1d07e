"""The proxy forwards, and fails at the moment that was asked for."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from tests.helpers.servers.proxy import Proxy
from tests.helpers.servers.server import Server
from tests.servers.clients import Lost, connect, run

LIMIT_S = 10.0


class Echo(socketserver.ThreadingTCPServer):
    """Answers each line with `<line>`, and keeps what it got."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.got: list[bytes] = []
        #: One for each connection that has ended.
        self.ended = threading.Semaphore(0)


class Answers(socketserver.StreamRequestHandler):
    server: Echo

    def handle(self) -> None:
        try:
            for line in self.rfile:
                self.server.got.append(line)
                if line == b"bye\n":
                    return
                self.wfile.write(b"<" + line.strip() + b">\n")
        except ConnectionResetError:
            pass  # what a cut is to a server
        finally:
            self.server.ended.release()


class Client:
    """A connection through the proxy that speaks in lines."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), LIMIT_S)
        self.lines = self.socket.makefile("rb")

    def say(self, line: str) -> None:
        self.socket.sendall(f"{line}\n".encode())

    def hear(self) -> str:
        return self.lines.readline().decode().strip()

    def ask(self, line: str) -> str:
        self.say(line)
        return self.hear()

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


def hear_nothing(port: int) -> None:
    client = Client(port)
    try:
        client.hear()
    finally:
        client.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="echo")
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.server_address[1]) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: Proxy) -> Iterator[Client]:
    client = Client(proxy.port)
    yield client
    client.close()


def test_it_forwards_both_ways(client: Client, proxy: Proxy) -> None:
    assert [client.ask("one"), client.ask("two")] == ["<one>", "<two>"]
    assert proxy.connections == 1


def test_it_forwards_much(client: Client) -> None:
    text = "x" * 5_000_000

    assert client.ask(text) == f"<{text}>"


def test_the_end_of_a_client_reaches_the_server(client: Client, echo: Echo) -> None:
    client.ask("one")

    client.socket.shutdown(socket.SHUT_WR)

    assert echo.ended.acquire(timeout=LIMIT_S)
    assert client.hear() == ""


def test_what_a_server_says_after_the_end_of_its_client_arrives(client: Client) -> None:
    text = "x" * 5_000_000
    client.say(text)
    client.socket.shutdown(socket.SHUT_WR)

    assert client.hear() == f"<{text}>"
    assert client.hear() == ""


def test_the_end_of_the_server_reaches_the_client(client: Client) -> None:
    assert client.ask("bye") == ""


def test_cut_resets_every_connection_on_both_sides(client: Client, proxy: Proxy, echo: Echo) -> None:
    other = Client(proxy.port)
    client.ask("one"), other.ask("two")

    proxy.cut()

    assert proxy.connections == 0
    for each in (client, other):
        with pytest.raises(ConnectionResetError):
            each.hear()
        assert echo.ended.acquire(timeout=LIMIT_S)
    other.close()
    again = Client(proxy.port)
    assert again.ask("three") == "<three>"
    again.close()


def test_refuse_lets_nobody_in_and_nobody_out_until_accept(client: Client, proxy: Proxy) -> None:
    client.ask("one")

    proxy.refuse()
    proxy.refuse()

    with pytest.raises(ConnectionRefusedError):
        Client(proxy.port)
    assert client.ask("two") == "<two>"
    proxy.accept()
    proxy.accept()
    again = Client(proxy.port)
    assert again.ask("three") == "<three>"
    again.close()


def test_a_server_that_is_not_there_ends_the_connection(proxy: Proxy, echo: Echo) -> None:
    proxy.target = 1

    with pytest.raises(ConnectionResetError):
        hear_nothing(proxy.port)


def test_stall_holds_back_and_go_on_loses_nothing(client: Client, proxy: Proxy, echo: Echo) -> None:
    client.ask("one")

    proxy.stall()
    client.say("two")
    client.say("three")
    client.socket.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)

    assert echo.got == [b"one\n"]
    client.socket.settimeout(LIMIT_S)
    proxy.go_on()
    received = b""
    while received.count(b"\n") < 2:
        received += client.socket.recv(100)
    assert received == b"<two>\n<three>\n"


def test_a_stalled_connection_can_be_cut(client: Client, proxy: Proxy, echo: Echo) -> None:
    client.ask("one")
    proxy.stall()
    client.say("two")

    proxy.cut()

    assert proxy.connections == 0
    with pytest.raises(ConnectionResetError):
        client.hear()
    assert echo.got == [b"one\n"]


def test_cut_after_loses_the_answer_and_not_the_deed(client: Client, proxy: Proxy, echo: Echo) -> None:
    other = Client(proxy.port)
    cut = proxy.cut_after(lambda data: b"COMMIT" in data)
    assert client.ask("INSERT") == "<INSERT>"

    client.say("COMMIT")

    assert cut.result(LIMIT_S) == b"<COMMIT>\n"
    with pytest.raises(ConnectionResetError):
        client.hear()
    assert echo.got == [b"INSERT\n", b"COMMIT\n"]
    # The others go on, and it happens once.
    assert other.ask("COMMIT") == "<COMMIT>"
    other.close()


def test_cut_after_waits_for_the_whole_answer_when_told_so(client: Client, proxy: Proxy, echo: Echo) -> None:
    cut = proxy.cut_after(lambda data: b"one" in data, answered=lambda answer: b"<two>\n" in answer)
    client.say("one")
    client.say("two")

    assert cut.result(LIMIT_S) == b"<one>\n<two>\n"
    with pytest.raises(ConnectionResetError):
        client.hear()


def test_cut_before_loses_the_deed_too(client: Client, proxy: Proxy, echo: Echo) -> None:
    cut = proxy.cut_before(lambda data: b"COMMIT" in data)
    assert client.ask("INSERT") == "<INSERT>"

    client.say("COMMIT")

    assert cut.result(LIMIT_S) == b""
    with pytest.raises(ConnectionResetError):
        client.hear()
    assert echo.ended.acquire(timeout=LIMIT_S)
    assert echo.got == [b"INSERT\n"]


def test_a_cut_can_be_called_off(client: Client, proxy: Proxy) -> None:
    cut = proxy.cut_after(lambda data: True)

    assert cut.cancel()

    assert client.ask("COMMIT") == "<COMMIT>"
    with pytest.raises(CancelledError):
        cut.result(0)


def test_a_cut_fails_where_the_server_ends_without_an_answer(client: Client, proxy: Proxy) -> None:
    cut = proxy.cut_after(lambda data: b"bye" in data)

    client.say("bye")

    with pytest.raises(ConnectionError, match=r"the server ended without an answer; it said b''"):
        cut.result(LIMIT_S)


def test_a_cut_fails_where_everything_is_cut_first(client: Client, proxy: Proxy) -> None:
    cut = proxy.cut_after(lambda data: True, answered=lambda answer: False)
    client.say("one")
    while not cut.running():
        proxy.connections  # noqa: B018 - a turn of its loop

    proxy.cut()

    with pytest.raises(ConnectionError, match="the connection was cut before the server had answered"):
        cut.result(LIMIT_S)


def test_a_judge_that_raises_is_heard(client: Client, proxy: Proxy) -> None:
    before = proxy.cut_after(lambda data: data[1_000] == 0)
    assert client.ask("one") == "<one>"
    with pytest.raises(IndexError):
        before.result(LIMIT_S)

    after = proxy.cut_after(lambda data: True, answered=lambda answer: answer[1_000] == 0)
    client.say("two")
    with pytest.raises(IndexError):
        after.result(LIMIT_S)
    with pytest.raises(ConnectionResetError):
        client.hear()


def test_closing_ends_everything(echo: Echo) -> None:
    with Proxy(echo.server_address[1]) as proxy:
        client = Client(proxy.port)
        client.ask("one")
        proxy.stall()

    with pytest.raises(ConnectionResetError):
        client.hear()
    with pytest.raises(ConnectionRefusedError):
        Client(proxy.port)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("proxy")]
    client.close()
    proxy.close()


def test_a_url_is_led_through_the_proxy() -> None:
    proxy = Proxy(5432)

    url = proxy.url("postgresql://me:secret@127.0.0.1:5432/shop?sslmode=disable")

    assert url == f"postgresql://me:secret@127.0.0.1:{proxy.port}/shop?sslmode=disable"
    with pytest.raises(ConnectionError, match=r"was not started, or was closed; call start\(\)"):
        proxy.cut()


def test_a_commit_is_done_and_its_answer_lost(server: Server, url: str) -> None:
    run(url, "create table pages (name varchar(20))")
    with Proxy(server.port) as proxy, connect(proxy.url(url)) as connection, connection.cursor() as cursor:
        cursor.execute("insert into pages values ('a')")
        cut = proxy.cut_after(lambda data: b"COMMIT" in data.upper())

        with pytest.raises(Lost):
            connection.commit()

        assert cut.result(LIMIT_S)

    assert run(url, "select name from pages") == [("a",)]


def test_a_commit_never_arrives(server: Server, url: str) -> None:
    run(url, "create table pages (name varchar(20))")
    with Proxy(server.port) as proxy, connect(proxy.url(url)) as connection, connection.cursor() as cursor:
        cursor.execute("insert into pages values ('a')")
        cut = proxy.cut_before(lambda data: b"COMMIT" in data.upper())

        with pytest.raises(Lost):
            connection.commit()

        assert cut.result(LIMIT_S) == b""

    assert run(url, "select name from pages") == []
