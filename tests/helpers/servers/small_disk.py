"""A disk that is soon full: a file system in memory, which only root can mount."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from tests.helpers.servers.mariadb import MariaServer
from tests.helpers.servers.place import User, fresh
from tests.helpers.servers.postgresql import PostgresServer
from tests.helpers.servers.server import Server


class SmallDisk:
    """A file system with so many megabytes, until `close`."""

    def __init__(self, megabytes: int, user: User) -> None:
        self.folder = fresh("disk", user)
        options = f"size={megabytes}m,mode=755,uid={user.uid or os.getuid()},gid={user.gid or os.getgid()}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.folder], check=True)

    @staticmethod
    def possible() -> bool:
        """Whether this process may mount one."""
        return os.geteuid() == 0 and shutil.which("mount") is not None

    def fill(self, left: int = 0) -> None:
        """Take all the space but so many bytes."""
        status = os.statvfs(self.folder)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - left)

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def close(self) -> None:
        """Unmount it; what was on it is gone."""
        subprocess.run(["umount", "--lazy", self.folder], check=True)
        self.folder.rmdir()


class OnSmallDisk(Server):
    """A server with its data on a small disk, with space until that is filled."""

    megabytes: ClassVar[int]
    disk: SmallDisk

    def _fill(self) -> None:
        self.disk = SmallDisk(self.megabytes, self.user)
        self._template().copy(self.disk.folder / "data")
        (self.folder / "data").symlink_to(self.disk.folder / "data")

    def close(self) -> None:
        super().close()
        self.disk.close()


class PostgresOnSmallDisk(OnSmallDisk, PostgresServer):
    """PostgreSQL."""

    megabytes = 100


class MariaOnSmallDisk(OnSmallDisk, MariaServer):
    """MariaDB."""

    megabytes = 320

    def _fill(self) -> None:
        super()._fill()
        # As the server makes it, without holes: it dies of a redo log that it cannot write.
        log = self.disk.folder / "data" / "ib_logfile0"
        with log.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, log.stat().st_size)
