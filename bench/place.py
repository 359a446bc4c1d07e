"""Where and on what it is measured: the folder, its disk, and the versions of everything."""

from __future__ import annotations

import datetime as dt
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib import metadata
from pathlib import Path

from everloop.store.sql.runners.sqlite_file import SqliteFile, file_system

ROOT = Path(__file__).resolve().parent.parent
#: File systems whose fsync reaches no disk: they would measure something else.
IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
PAGE = 4096


class PlaceError(Exception):
    """The folder cannot serve; the message says why."""


def choose(given: Path | None) -> Path:
    """Return a folder on a real disk: the given one, or a usual one.

    Raises:
        PlaceError: It lies in memory, or is no folder.
    """
    if given is not None:
        if not given.is_dir():
            raise PlaceError(f"--dir {given} is not a folder; create it first")
        kind = file_system(given)
        if kind in IN_MEMORY:
            raise PlaceError(
                f"--dir {given} lies on {kind}, in memory: a commit there waits for no disk, and the "
                "figures would say nothing. Give a folder on a disk (`df -T` shows the types)"
            )
        return given
    usual = [Path(tempfile.gettempdir()), Path("/var/tmp"), ROOT]
    for folder in usual:
        if folder.is_dir() and os.access(folder, os.W_OK) and file_system(folder) not in IN_MEMORY:
            return folder
    raise PlaceError(f"{', '.join(map(str, usual))} all lie in memory; give a folder on a disk with --dir")


def fsync_ms(folder: Path, *, count: int = 40, pause: float = 0.0) -> float:
    """Return the median time of appending 4 KiB and waiting until the disk has them, in milliseconds."""
    path = folder / "fsync"
    page = os.urandom(PAGE)
    times: list[float] = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        for _ in range(count):
            if pause:
                time.sleep(pause)
            started = time.perf_counter()
            os.write(descriptor, page)
            os.fsync(descriptor)
            times.append(time.perf_counter() - started)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(times) * 1e3


def facts(folder: Path) -> dict[str, str]:
    """Return what a reader must know to judge the figures."""
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "machine": f"{os.cpu_count()} cores, {_memory()}, {_processor()}",
        "system": f"{_distribution()}{platform.system()} {platform.release()}",
        "priority": _priority(),
        "python": f"{platform.python_implementation()} {platform.python_version()}, {_build()}",
        "loop": _version("uvloop") or "asyncio (uvloop is not installed)",
        "file system": f"{file_system(folder) or 'unknown'} ({folder})",
        "sqlite": f"{sqlite3.sqlite_version}, {_settings(folder)}",
    }


def _distribution() -> str:
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, "
    except (OSError, KeyError):  # no Linux, or one that does not say
        return ""


def _build() -> str:
    """Say how this Python was built: one that was not optimized with a profile is up to a third slower."""
    if sys.base_prefix == "/usr":
        return "the distribution's"
    optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return f"built {'with' if optimized else 'without'} --enable-optimizations"


def commit() -> str:
    """Return the commit that is measured, marked when the files differ from it."""
    hash_ = _git("rev-parse", "--short=10", "HEAD")
    if not hash_:
        return "unknown"
    return f"{hash_}+changes" if _git("status", "--porcelain", "--", "src", "bench") else hash_


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _settings(folder: Path) -> str:
    """Connect as the store does, and read back what SQLite really does."""
    path = folder / "settings.db"
    connection = SqliteFile(path).connect()
    try:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        (level,) = connection.execute("PRAGMA synchronous").fetchone()
    finally:
        connection.close()
        for name in (path, *folder.glob("settings.db-*")):
            name.unlink(missing_ok=True)
    levels = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
    return f"journal_mode={mode}, synchronous={levels.get(level, level)} (read back)"


def _version(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return ""


def _priority() -> str:
    """Tell whether the scheduler prefers the bench to other programs."""
    group = Path("/proc/self/autogroup")
    found = group.read_text(encoding="ascii").split() if group.exists() else []
    nice = int(found[-1]) if found else os.nice(0)
    return f"nice {nice}{', before the other programs of this machine' if nice < 0 else ''}"


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
