"""Servers start, crash, come back with what was committed, and leave nothing behind."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.helpers.servers import place
from tests.helpers.servers.fixtures import required
from tests.helpers.servers.place import ServerFailed
from tests.helpers.servers.server import Server
from tests.servers.clients import Lost, connect, family, left, run, shared_memory
from tests.servers.conftest import KINDS

#: Starts a server, says where, and then does what is asked of it.
PROGRAM = """
import os, signal, sys
from {module} import {kind}
from tests.servers.clients import family, shared_memory

server = {kind}(fast=True).start()
url = server.database()
print(server.folder, server.guard, *family(server.pid), flush=True)
print(*shared_memory(server), flush=True)
sys.stdin.readline()
{end}
"""
#: How that program ends; two of these wait to be killed.
ENDS = {
    "exit": "sys.exit(0)",
    "kill": "signal.pause()",
    # The fork outlives the program, and holds copies of all that it had open.
    "kill beside a fork": "fork = os.fork()\nif fork: print(fork, flush=True)\nsignal.pause()",
}
LIMIT_S = 20.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


def test_what_was_committed_survives_a_crash_and_nothing_else(own: Server) -> None:
    url, port, folder, before = own.database(), own.port, own.folder, own.pid
    run(url, "create table pages (name varchar(20))", "insert into pages values ('committed')")
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("insert into pages values ('pending')")
        processes = family(own.pid)

        own.kill()

        assert not own.running
        assert not any(Path(f"/proc/{pid}").exists() for pid in processes)
        with pytest.raises(Lost):
            cursor.execute("insert into pages values ('later')")

    own.start()

    assert (own.port, own.folder) == (port, folder)
    assert own.pid != before
    assert run(url, "select name from pages") == [("committed",)]


def test_a_server_that_was_stopped_is_started_again(own: Server) -> None:
    url = own.database()
    run(url, "create table pages (name varchar(20))")

    with connect(url):
        own.stop()

    assert not own.running
    with pytest.raises(ServerFailed, match="has no process: it was not started, or was ended; call start"):
        _ = own.pid
    own.start()
    assert run(url, "select name from pages") == []


def test_start_does_nothing_when_it_runs(server: Server) -> None:
    pid = server.pid

    assert server.start() is server
    assert server.pid == pid


def test_closing_leaves_no_process_no_folder_and_no_memory(own: Server) -> None:
    folder, processes, memory = own.folder, family(own.pid), shared_memory(own)
    assert folder.exists() and left(memory) == memory

    own.close()

    assert not folder.exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes)
    assert left(memory) == set()
    own.close()


def test_closing_after_a_crash_leaves_nothing_either(own: Server) -> None:
    folder, memory = own.folder, shared_memory(own)
    own.kill()

    own.close()

    assert not folder.exists() and left(memory) == set()


@pytest.mark.parametrize("end", sorted(ENDS))
def test_a_program_that_ends_without_closing_leaves_nothing(kind: str, end: str) -> None:
    required(KINDS[kind])
    source = PROGRAM.format(module=KINDS[kind].__module__, kind=KINDS[kind].__name__, end=ENDS[end])
    command = [sys.executable, "-W", "ignore", "-c", source]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdin is not None and program.stdout is not None
        folder, guard, *processes = program.stdout.readline().split()
        memory = set(program.stdout.readline().split())
        assert Path(folder).exists() and left(memory) == memory
        gone = os.pidfd_open(int(guard))
        print(file=program.stdin, flush=True)
        fork = program.stdout.readline() if "fork" in end else ""
        if end != "exit":
            program.kill()

        assert select.select([gone], [], [], LIMIT_S)[0], f"the guard {guard} of {folder} does not end"

        os.close(gone)
        if fork:
            os.kill(int(fork), signal.SIGKILL)
        assert not Path(folder).exists()
        assert not any(Path(f"/proc/{pid}").exists() for pid in processes)
        assert left(memory) == set()


def test_a_fork_does_not_end_the_server(server: Server) -> None:
    pid = os.fork()
    if pid == 0:
        server.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

    assert server.running


def test_a_setting_that_the_server_refuses_is_told_with_its_log(kind: str) -> None:
    required(KINDS[kind])
    server = KINDS[kind](settings={"no_such_setting": 1})

    with pytest.raises(
        ServerFailed, match=rf"(?s){server.kind} ended with \d+; the end of its log:\n.*no.such.setting"
    ):
        server.start()

    server.close()


def test_settings_are_taken(kind: str) -> None:
    required(KINDS[kind])
    with KINDS[kind](fast=True, settings={"max_connections": 23}) as server:
        sql = "show max_connections" if kind == "postgresql" else "select @@max_connections"
        assert [[str(value)] for (value,) in server.execute(sql)] == [["23"]]


def test_the_defaults_keep_what_is_committed_and_fast_does_not(
    own: Server, server: Server, kind: str
) -> None:
    sql = {
        "mariadb": "select @@innodb_flush_log_at_trx_commit, @@innodb_flush_method",
        "postgresql": "select current_setting('fsync'), current_setting('synchronous_commit')",
    }[kind]
    kept = {"mariadb": [(1, "O_DIRECT")], "postgresql": [("on", "on")]}[kind]
    spared = {"mariadb": [(0, "nosync")], "postgresql": [("off", "off")]}[kind]

    assert own.execute(sql) == kept
    assert server.execute(sql) == spared


def test_another_port_is_taken_when_somebody_was_quicker(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as quicker:
        free = place.free_port()
        ports = iter([quicker.getsockname()[1], free])
        monkeypatch.setattr("tests.helpers.servers.server.free_port", lambda: next(ports))

        with required(KINDS[kind]) as server:
            assert server.port == free
            assert server.execute("select 1") == [(1,)]


def test_another_server_of_ours_is_not_taken_for_the_new_one(
    kind: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = place.free_port()
    ports = iter([server.port, free])
    monkeypatch.setattr("tests.helpers.servers.server.free_port", lambda: next(ports))

    with required(KINDS[kind]) as other:
        assert other.port == free
        assert other.pid != server.pid
