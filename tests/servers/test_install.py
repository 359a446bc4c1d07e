"""Servers are found, or installed, or what is missing is told."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest
import servers

from tests.helpers.servers import binaries, install
from tests.helpers.servers.binaries import Binaries, ServerMissing
from tests.helpers.servers.fixtures import required
from tests.helpers.servers.mariadb import MariaServer
from tests.helpers.servers.mysql import MysqlServer, installed_family
from tests.helpers.servers.postgresql import PostgresServer
from tests.helpers.servers.server import Server

POSTGRESQL_IS_MISSING = (
    "PostgreSQL 13 or newer is not installed: found no postgres and initdb on PATH, in /usr/local/bin or "
    "where Debian puts them; "
    "install it (Debian, Ubuntu: sudo apt-get install --no-install-recommends postgresql), "
    "or let `python tools/servers.py` do that as root; "
    "EVERLOOP_SKIP_SERVERS=1 leaves out the tests that need a server"
)
MARIADB_IS_MISSING = (
    "MariaDB 10.6 or newer is not installed: found no mariadbd and mariadb-install-db on PATH"
)


class Machine:
    """A machine without a server, to be given programs; what they were asked stands in `asked`."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "programs"
        self.postgresql = folder / "postgresql"
        self.policy = folder / "policy-rc.d"
        self._asked = folder / "asked"
        self.programs.mkdir()

    @property
    def asked(self) -> list[str]:
        return self._asked.read_text(encoding="utf-8").splitlines() if self._asked.exists() else []

    def give(self, name: str, does: str, folder: Path | None = None) -> Path:
        path = (folder or self.programs) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def give_apt(self, result: str) -> None:
        """Let apt-get note what it is asked and what the policy says; an installation does `result`."""
        self.give(
            "apt-get",
            f'echo "apt-get $*" >> {self._asked}\n'
            f'test -x {self.policy} && {self.policy}; echo "policy $?" >> {self._asked}\n'
            f'case "$*" in *install*) {result};; esac',
        )


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    # The shell's own programs stay in reach, by their paths.
    monkeypatch.setenv("PATH", str(machine.programs))
    monkeypatch.setattr(binaries, "FOLDERS", ())
    monkeypatch.setattr(binaries, "POSTGRESQL_ROOT", machine.postgresql)
    monkeypatch.setattr(install, "POLICY", machine.policy)
    monkeypatch.delenv(install.SKIP, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    return machine


def postgres(machine: Machine, version: str, folder: Path | None = None) -> Path:
    machine.give("initdb", "exit 1", folder)
    return machine.give("postgres", f"echo 'postgres (PostgreSQL) {version} (Debian)'", folder)


def test_the_newest_postgresql_is_found(machine: Machine) -> None:
    postgres(machine, "9.6.2")
    for version in ("15.18", "17.2", "16.9"):
        postgres(machine, version, machine.postgresql / version[:2] / "bin")

    assert binaries.postgresql() == Binaries(
        "PostgreSQL", machine.postgresql / "17/bin/postgres", machine.postgresql / "17/bin/initdb", (17, 2)
    )


def test_servers_that_are_too_old_do_not_count(machine: Machine) -> None:
    postgres(machine, "12.20")
    machine.give("mariadbd", "echo 'mariadbd  Ver 10.5.29-MariaDB for Linux'")
    machine.give("mariadb-install-db", "exit 1")

    with pytest.raises(ServerMissing, match=re.escape(POSTGRESQL_IS_MISSING)):
        binaries.postgresql()
    with pytest.raises(ServerMissing, match=MARIADB_IS_MISSING):
        binaries.mariadb()


def test_a_link_on_the_path_is_followed_to_the_program(machine: Machine) -> None:
    real = postgres(machine, "15.18", machine.postgresql / "15" / "bin")
    for name in ("postgres", "initdb"):
        (machine.programs / name).symlink_to(real.with_name(name))

    assert binaries.postgresql() == Binaries("PostgreSQL", real, real.with_name("initdb"), (15, 18))


def test_mariadb_is_found_under_its_older_name(machine: Machine) -> None:
    server = machine.give("mysqld", "echo 'mysqld  Ver 10.6.18-MariaDB for Linux'")
    fill = machine.give("mysql_install_db", "exit 1")

    assert binaries.mariadb() == Binaries("MariaDB", server, fill, (10, 6, 18))


def test_another_program_of_that_name_is_no_mariadb(machine: Machine) -> None:
    machine.give("mysqld", "echo '/usr/sbin/mysqld  Ver 8.0.36 for Linux on x86_64 (MySQL)'")
    machine.give("mysql_install_db", "exit 1")

    with pytest.raises(ServerMissing, match=MARIADB_IS_MISSING):
        binaries.mariadb()


def test_mysql_serves_where_there_is_no_mariadb(machine: Machine) -> None:
    assert installed_family() is MariaServer

    server = machine.give("mysqld", "echo '/usr/sbin/mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))'")

    assert binaries.mysql_family() == Binaries("MySQL", server, server, (9, 7, 4))
    assert isinstance(required(MariaServer), MysqlServer)

    maria = machine.give("mariadbd", "echo 'mariadbd  Ver 11.8.9-MariaDB for Linux'")
    fill = machine.give("mariadb-install-db", "exit 1")

    assert binaries.mysql_family() == Binaries("MariaDB", maria, fill, (11, 8, 9))
    assert not isinstance(required(MariaServer), MysqlServer)


@pytest.mark.parametrize(
    "says", ["mysqld  Ver 8.0.18 for Linux on x86_64 (MySQL)", "mysqld  Ver 10.6.18-MariaDB for Linux"]
)
def test_what_is_no_mysql_of_today_does_not_count(machine: Machine, says: str) -> None:
    machine.give("mysqld", f"echo '{says}'")

    with pytest.raises(
        ServerMissing, match=r"MySQL 8.0.19 or newer is not installed: found no mysqld on PATH"
    ):
        binaries.mysql()
    with pytest.raises(ServerMissing, match=MARIADB_IS_MISSING):
        binaries.mysql_family()


@pytest.mark.parametrize("kind", [PostgresServer, MariaServer])
def test_a_test_that_needs_a_missing_server_fails_with_advice(machine: Machine, kind: type[Server]) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"is not installed: .*; install it \(.*apt-get install"):
        required(kind)


def test_a_test_that_needs_a_server_is_skipped_on_purpose_only(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(install.SKIP, "1")

    with pytest.raises(pytest.skip.Exception, match="EVERLOOP_SKIP_SERVERS=1"):
        required(PostgresServer)


def test_what_is_there_is_not_installed(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.give_apt("exit 1")
    server = postgres(machine, "15.18")
    maria = machine.give("mariadbd", "echo 'mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu'")
    machine.give("mariadb-install-db", "exit 1")
    pooler = machine.give("pgbouncer", "echo 'PgBouncer 1.18.0'")

    assert servers.main() == 0

    assert capsys.readouterr().out.splitlines() == [
        f"everloop: PostgreSQL 15.18 ({server})",
        f"everloop: MariaDB 10.11.19 ({maria})",
        f"everloop: PgBouncer 1.18.0 ({pooler})",
    ]
    assert machine.asked == []


def test_what_is_missing_is_installed_without_starting_a_service(machine: Machine) -> None:
    stored = postgres(machine, "15.18", machine.programs.with_name("stored"))
    machine.give_apt(
        f"/bin/mkdir -p {machine.postgresql}/15 && /bin/ln -s {stored.parent} {machine.postgresql}/15/bin"
    )
    machine.give("service", f'echo "service $*" >> {machine.programs.with_name("asked")}')

    found = install.ensure(install.WANTED[0])

    assert found == Binaries("PostgreSQL", stored, stored.with_name("initdb"), (15, 18))
    assert machine.asked == [
        "apt-get -q -o DPkg::Lock::Timeout=300 update",
        "policy 101",
        "apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends postgresql",
        "policy 101",
        "service postgresql stop",
    ]
    assert not machine.policy.exists()


def test_a_machine_keeps_its_own_policy(machine: Machine) -> None:
    machine.give_apt("exit 1")
    own = "#!/bin/sh\nexit 104\n"
    machine.policy.write_text(own, encoding="utf-8")
    machine.policy.chmod(0o755)

    with pytest.raises(ServerMissing):
        install.ensure(install.WANTED[0])

    assert "policy 104" in machine.asked
    assert machine.policy.read_text(encoding="utf-8") == own


def test_a_failed_installation_is_told_with_what_it_printed(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.give_apt("echo E: no room; exit 100")

    assert servers.main() == 1

    told = capsys.readouterr()
    assert "everloop: installing PostgreSQL (postgresql)" in told.out
    assert "everloop: installing MariaDB (mariadb-server-core mariadb-client-core)" in told.out
    assert f"everloop: {POSTGRESQL_IS_MISSING}\n" in told.err
    assert f"everloop: {MARIADB_IS_MISSING}" in told.err
    assert (
        "\n`apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends postgresql` "
        "ended with 100; it printed:\nE: no room\n"
    ) in told.err
    assert not machine.policy.exists()


def test_only_root_installs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.give_apt("exit 0")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert servers.main() == 1

    assert POSTGRESQL_IS_MISSING in capsys.readouterr().err
    assert machine.asked == []


def test_skipping_is_said_aloud(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.give_apt("exit 0")
    monkeypatch.setenv(install.SKIP, "1")

    assert servers.main() == 0

    assert capsys.readouterr().out == (
        "everloop: EVERLOOP_SKIP_SERVERS=1: EVERY TEST THAT NEEDS A DATABASE SERVER IS SKIPPED\n"
    )
    assert machine.asked == []
