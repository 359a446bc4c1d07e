"""Install the database servers of the tests, where that can be done without asking: as root on Debian."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.servers import binaries
from tests.helpers.servers.binaries import Binaries, ServerMissing

#: Set to 1, it leaves out every test that needs a server.
SKIP = "EVERLOOP_SKIP_SERVERS"
#: Asked by Debian's packages whether they may start their services; 101 means no.
POLICY = Path("/usr/sbin/policy-rc.d")
REFUSAL = "#!/bin/sh\nexit 101\n"


@dataclass(frozen=True)
class Wanted:
    """A server, how it is found and what Debian calls it."""

    name: str
    find: Callable[[], Binaries]
    packages: tuple[str, ...]
    #: The service that the packages bring, if any: it is none of ours.
    service: str | None


WANTED = (
    Wanted("PostgreSQL", binaries.postgresql, ("postgresql",), "postgresql"),
    # The programs alone: without a service, and without the user and the data folder of one.
    # Where MySQL is installed instead, it serves: the packages of the two exclude each other.
    Wanted("MariaDB", binaries.mysql_family, ("mariadb-server-core", "mariadb-client-core"), None),
    Wanted("PgBouncer", binaries.pgbouncer, ("pgbouncer",), "pgbouncer"),
)


def skipped() -> bool:
    """Tell whether the tests that need a server are left out on purpose."""
    return os.environ.get(SKIP) == "1"


def ensure(wanted: Wanted) -> Binaries:
    """Find a server, and install it where it is missing.

    Raises:
        ServerMissing: It is not there and could not be installed; with what to do.
    """
    try:
        return wanted.find()
    except ServerMissing as missing:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise
        with _alone():
            try:
                return wanted.find()  # another process has just installed it
            except ServerMissing:
                _install(wanted, missing)
        return wanted.find()


def _install(wanted: Wanted, missing: ServerMissing) -> None:
    print(f"everloop: installing {wanted.name} ({' '.join(wanted.packages)})", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    options = ("-q", "-o", "DPkg::Lock::Timeout=300")
    with _no_services():
        for command in (
            ("apt-get", *options, "update"),
            ("apt-get", *options, "install", "-y", "--no-install-recommends", *wanted.packages),
        ):
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode:
                told = f"`{' '.join(command)}` ended with {done.returncode}; it printed:\n{done.stdout}"
                raise ServerMissing(f"{missing}\n{told}")
    if wanted.service is not None:
        _stop(wanted.service)


def _stop(service: str) -> None:
    """Stop what a package has started in spite of us; it answers "not running" otherwise."""
    if shutil.which("service") is not None:
        subprocess.run(
            ["service", service, "stop"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )


@contextmanager
def _no_services() -> Iterator[None]:
    """Forbid packages to start services, unless this machine has a policy of its own."""
    try:
        descriptor = os.open(POLICY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    except FileExistsError:
        yield
        return
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(REFUSAL)
        yield
    finally:
        POLICY.unlink()


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time install."""
    path = Path(tempfile.gettempdir()) / "everloop-servers.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
