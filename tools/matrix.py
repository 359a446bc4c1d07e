"""Run the suites on Python 3.14, PostgreSQL 18 and MySQL 9, in a folder with Debian sid.

`matrix.py [SUITE ...]` as root on Linux. The folder (build/matrix, or $EVERLOOP_MATRIX) is filled once and
used again; remove it to begin with newer packages. What it runs is a copy of the files that git knows or
would add. It runs in namespaces of its own: when this program ends, however it does, every process in there
and every mount end with it, and no mount is ever seen outside. Nothing is written beside the folder.

Its last line is the count of tests, alone on the line: `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
#: Names another folder.
FOLDER = "EVERLOOP_MATRIX"
MIRROR = "http://deb.debian.org/debian"

#: What is run unless somebody names other suites.
SUITES = ("unit", "stores", "engine", "servers", "databases", "parity")
#: MySQL's programs alone: its own package would make a user and a data folder, and start a service.
PACKAGES = (
    "ca-certificates",
    "mysql-server-core",
    "openssl",
    "pgbouncer",
    "postgresql-18",
    "python3.14-venv",
    "tzdata",
)
#: The programs that this needs here, and the packages of Debian's that have them.
PROGRAMS = {
    "chroot": "coreutils",
    "debootstrap": "debootstrap",
    "git": "git",
    "mount": "mount",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
#: This machine's certificates: the network may have an authority of its own.
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

#: Within the folder.
PROJECT, VENV, TRUSTED = "/everloop", "/venv", "/etc/everloop-certificates.crt"
#: Mounts what the programs in there need; the folder itself, too, or it is on no file system that they see.
#: `exit` keeps this shell as the first process, which reaps orphans.
INSIDE = """
mount --bind "$0" "$0" && mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/dev/shm" || exit 125
chroot "$0" "$@"
exit $?
"""


def main(arguments: list[str]) -> int:
    """Fill the folder, run the suites there, and return 0 when all is well."""
    signal.signal(signal.SIGTERM, _interrupted)
    see_that_it_can_run()
    sid = Sid(Path(os.environ.get(FOLDER) or ROOT / "build" / "matrix").resolve())
    sid.fill()
    sid.install()
    sid.copy(ROOT)
    sid.install_project()
    print(f"everloop: {revision(ROOT)}", flush=True)
    return sid.run(f"{VENV}/bin/python", "tools/suites.py", *(arguments or SUITES))


def _interrupted(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def see_that_it_can_run() -> None:
    """Install the programs that are missing here.

    Raises:
        SystemExit: One cannot be had; with what to do.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        sys.exit(
            "everloop: make test-matrix fills a folder with Debian sid and runs the tests in there, which "
            f"takes Linux and root; this is {sys.platform}, as user {os.geteuid()}. "
            "Run: sudo make test-matrix"
        )
    missing = sorted(name for name in PROGRAMS if shutil.which(name) is None)
    packages = sorted({PROGRAMS[name] for name in missing})
    if missing and shutil.which("apt-get"):
        print(f"everloop: installing {' '.join(packages)}", flush=True)
        for command in (("update",), ("install", "-y", "--no-install-recommends", *packages)):
            quietly(["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *command])
        missing = [name for name in missing if shutil.which(name) is None]
    if missing:
        sys.exit(
            f"everloop: make test-matrix needs {', '.join(missing)}, and found none of these on PATH; "
            f"install them (Debian, Ubuntu: sudo apt-get install {' '.join(packages)})"
        )


def quietly(command: Sequence[str], environment: dict[str, str] | None = None) -> None:
    """Run a command to its end.

    Raises:
        SystemExit: It failed; with what it printed.
    """
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
        sys.exit(f"everloop: `{' '.join(command)}` ended with {done.returncode}; it printed:\n{done.stdout}")


def apart(*command: str) -> list[str]:
    """Return the command for running another one where its mounts and processes end with it, and with us."""
    return [
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", *command),
    ]


def apt_settings() -> str:
    """Return how apt-get fetches on this machine, if it is one with apt-get."""
    if shutil.which("apt-config") is None:
        return ""
    asked = ["apt-config", "dump", "Acquire"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout


def revision(root: Path) -> str:
    """Return which commit the files are of."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-c", f"safe.directory={root}", "-C", root, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD") or "no commit"
    return f"commit {commit}{', with changes' if git('status', '--porcelain') else ''}"


def files(root: Path) -> list[Path]:
    """Return the files that git knows or would add, relative to the root; those that are there."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={root}", "-C", root, "ls-files", "-coz", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = [name for name in listed.stdout.split("\0") if name]
    return [Path(name) for name in names if (root / name).is_file()]


@dataclass(frozen=True)
class Sid:
    """A folder with Debian sid in it."""

    folder: Path

    def fill(self) -> None:
        """Make the base system, unless a run before has."""
        made = self.folder / ".everloop-made"
        if made.exists():
            return
        if self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / "debootstrap").exists():
            sys.exit(
                f"everloop: {self.folder} is neither empty nor one that make test-matrix has begun to fill; "
                f"name another one in {FOLDER}, or remove it"
            )
        print(f"everloop: filling {self.folder} with Debian sid from {MIRROR}", flush=True)
        shutil.rmtree(self.folder, ignore_errors=True)  # it may not be there
        self.folder.mkdir(parents=True)
        quietly(apart("--mount-proc", "debootstrap", "--variant=minbase", "sid", str(self.folder), MIRROR))
        # Fetch as this machine does: through its proxy, if any, and with its patience about old lists.
        self._write("etc/apt/apt.conf.d/99everloop", f'APT::Install-Recommends "0";\n{apt_settings()}')
        # No package starts a service or makes a database in there.
        self._write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n").chmod(0o755)
        self._write("etc/postgresql-common/createcluster.conf", "create_main_cluster = false\n")
        made.touch()

    def install(self) -> None:
        """Install the packages, unless a run before has."""
        if self._is("packages", " ".join(PACKAGES)):
            return
        print(f"everloop: installing {' '.join(PACKAGES)}", flush=True)
        for command in (("update",), ("install", "-y", *PACKAGES), ("clean",)):
            self._quietly("apt-get", "-q", *command)
        self._becomes("packages", " ".join(PACKAGES))

    def copy(self, root: Path) -> None:
        """Bring the project's files, and no others."""
        there = self.folder / PROJECT[1:]
        shutil.rmtree(there, ignore_errors=True)  # the first time there is none
        for file in files(root):
            (there / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / file, there / file)

    def install_project(self) -> None:
        """Install the project with what its tests need, unless its needs are as in the run before."""
        needs = (self.folder / PROJECT[1:] / "pyproject.toml").read_bytes()
        digest = hashlib.sha256(needs).hexdigest()
        if self._is("needs", digest):
            return
        print("everloop: installing the package and the tests for Python 3.14", flush=True)
        if CERTIFICATES.exists():
            self._write(TRUSTED[1:], CERTIFICATES.read_text(encoding="utf-8"))
        pip = (f"{VENV}/bin/python", "-m", "pip", "install", "-qq")
        self._quietly("python3.14", "-m", "venv", "--clear", VENV)
        self._quietly(*pip, "pip>=25.1")
        self._quietly(
            *pip, "--upgrade", "--editable", f"{PROJECT}[all]", "--group", f"{PROJECT}/pyproject.toml:test"
        )
        self._becomes("needs", digest)

    def run(self, *command: str) -> int:
        """Run a command in the project's folder there, and return how it ended."""
        with subprocess.Popen(self._inside(command), env=self._environment()) as process:
            try:
                return process.wait()
            except BaseException:
                # It takes all that it has started with it.
                process.kill()
                raise

    # ---------------------------------------------------------------------------- plumbing

    def _inside(self, command: Sequence[str]) -> list[str]:
        place = f'cd {PROJECT} 2>/dev/null || cd /; exec "$@"'
        return apart("sh", "-c", INSIDE, str(self.folder), "sh", "-c", place, "sh", *command)

    def _quietly(self, *command: str) -> None:
        quietly(self._inside(command), self._environment())

    def _environment(self) -> dict[str, str]:
        """Return an environment in which only the way to the package index is this machine's."""
        index = {name: value for name, value in os.environ.items() if name.startswith("PIP_INDEX_URL")}
        if CERTIFICATES.exists():
            index["PIP_CERT"] = TRUSTED
        return index | {
            "PATH": f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def _is(self, what: str, value: str) -> bool:
        """Whether a step of a run before has ended, and with this."""
        note = self.folder / f".everloop-{what}"
        return note.exists() and note.read_text(encoding="utf-8") == value

    def _becomes(self, what: str, value: str) -> None:
        self._write(f".everloop-{what}", value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
