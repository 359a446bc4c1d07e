"""Where a server runs: its user, its folder, its port, and the filled data folder that it begins with."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: Below the ports of outgoing connections: a server that was killed finds its own free again.
PORTS = range(20_000, 32_000)
#: A path of a unix socket is at most 107 bytes long, and 103 on macOS.
LONGEST = 60


class ServerFailed(Exception):
    """A server or the program that fills its folder did not do what it should; with what it printed."""


@dataclass(frozen=True)
class User:
    """Who runs a server; both are None where that is who we are."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def unprivileged(cls, *names: str) -> User:
        """Return ourselves, or the first of these users when we are root, whom no server accepts."""
        if os.geteuid() != 0:
            return cls()
        for name in names:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(entry.pw_uid, entry.pw_gid)
        raise ServerFailed(
            f"database servers refuse to run as root, and there is no user {' or '.join(names)}; "
            "run the tests as another user, or make one: useradd --system nobody"
        )

    def own(self, path: Path) -> None:
        """Give a file or folder to this user."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def run(self, command: Sequence[str | Path], folder: Path) -> None:
        """Run a program as this user to its end.

        Raises:
            ServerFailed: It did not end well.
        """
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
        )
        if done.returncode:
            raise ServerFailed(
                f"{' '.join(map(str, command))} ended with {done.returncode}; it printed:\n{done.stdout}"
            )


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which nobody's settings (PGPORT, MYSQL_HOST, ...) have a say."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "LC_ALL": "C.UTF-8"}


def temporary() -> Path:
    """Return the folder of temporary files, or /tmp where another user or a socket's path cannot go there."""
    folder = Path(tempfile.gettempdir()).resolve()
    passable = os.geteuid() != 0 or all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))
    return folder if passable and len(os.fsencode(folder)) <= LONGEST else Path("/tmp")


def fresh(name: str, user: User) -> Path:
    """Make a folder that is this user's."""
    folder = Path(tempfile.mkdtemp(prefix=f"everloop-{name}-", dir=temporary()))
    user.own(folder)
    return folder


def free_port() -> int:
    """Return a loopback port that nobody uses, where none is given out by itself either."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerFailed(f"100 ports between {PORTS.start} and {PORTS.stop} are all in use; free some")


@dataclass(frozen=True)
class Template:
    """A filled data folder, made once and kept among the temporary files, to be copied for each server."""

    name: str
    #: Makes the data; `{folder}` stands for where.
    command: tuple[str, ...]
    user: User
    #: Small files that the command reads, by name, also to be had as `{folder}/name`.
    files: Mapping[str, str]

    @property
    def key(self) -> str:
        """What the data depends on: the version in the name, the command and who owns it."""
        text = repr((self.command, self.user, sorted(self.files.items())))
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def copy(self, data: Path) -> None:
        """Copy the data to a folder that does not exist yet; make them first where nobody has."""
        cache = _cache()
        ready = cache / self.key
        with _locked(cache / f"{self.key}.lock"):
            if not ready.exists():
                self._make(cache, ready)
        # cp copies holes as holes, and shares blocks where the file system can.
        subprocess.run(["cp", "-a", "--", ready / "data", data], check=True)

    def _make(self, cache: Path, ready: Path) -> None:
        folder = Path(tempfile.mkdtemp(prefix="making-", dir=cache))
        try:
            self.user.own(folder)
            for name, text in self.files.items():
                path = folder / name
                path.write_text(text, encoding="utf-8")
                self.user.own(path)
            self.user.run([part.format(folder=folder) for part in self.command], folder)
            # In one step: what is there is whole.
            folder.rename(ready)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # renamed, or of no use


def _cache() -> Path:
    """Return the folder of templates, which nobody else may have put there."""
    folder = temporary() / f"everloop-servers-{os.geteuid()}"
    folder.mkdir(mode=0o711, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise ServerFailed(
            f"{folder} belongs to somebody else; remove it, or set TMPDIR to a folder of yours"
        )
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file's lock; another process waits."""
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
