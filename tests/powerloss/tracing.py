"""What a program writes into a folder, as strace tells it, in the order in which it happened."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tests.helpers.servers import install
from tests.helpers.servers.binaries import Binaries, ServerMissing

CALLS = "openat,pwrite64,write,fsync,fdatasync,ftruncate,unlink,unlinkat"
#: Calls that would change a file behind the model's back: none may be met.
UNKNOWN = "pwritev,pwritev2,writev,rename,renameat,renameat2,fallocate,copy_file_range,sendfile"


#: What SQLite makes anew after a crash, and a lock file: their contents do not matter.
FLEETING = ("-shm", ".lock")


@dataclass(frozen=True)
class Did:
    """One change of a file.

    Attributes:
        name: The file's in the folder, or "." for the folder itself.
        birth: How many files had this name before: another file of a name is another file.
    """

    what: Literal["create", "write", "truncate", "sync", "unlink"]
    name: str
    birth: int = 0
    at: int = 0
    data: bytes = b""


def strace() -> Path:
    """Return the program, installed if that can be done without asking.

    Raises:
        ServerMissing: It is not there.
    """
    return install.ensure(install.Wanted("strace", _find, ("strace",), None)).server


def _find() -> Binaries:
    path = shutil.which("strace")
    if path is None:
        raise ServerMissing(
            "strace is not installed; install it (Debian, Ubuntu: sudo apt-get install strace)"
        )
    return Binaries("strace", Path(path), Path(path), ())


def traced(folder: Path, *program: str, env: dict[str, str]) -> list[Did]:
    """Run a Python program, and return what it did to the files in `folder`."""
    record = folder.with_name(folder.name + ".trace")
    command = [
        *(str(strace()), "-f", "-qq", "-yy", "-xx", "-s", "1000000", "--seccomp-bpf", "-e", "signal=none"),
        *("-e", f"trace={CALLS},{UNKNOWN}", "-o", str(record), sys.executable, *program),
    ]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"strace ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    with record.open("rb") as lines:
        found = list(parse(lines, os.fsencode(folder)))
    record.unlink()
    return found


_CALL = re.compile(rb"(\d+) +(\w+)\((.*)\) += (-?\d+)")
_BEGUN = re.compile(rb"(\d+) +(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(rb"(\d+) +<\.\.\. \w+ resumed>(.*)$")
_TEXT = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"')
_HANDLE = re.compile(rb"\d+<((?:\\x[0-9a-f]{2})*)>")


def parse(lines: Iterator[bytes] | list[bytes], folder: bytes) -> Iterator[Did]:
    """Read strace's lines; what another thread did in between is put in at the end of a call."""
    begun: dict[bytes, bytes] = {}
    there: set[str] = set()
    births: dict[str, int] = {}
    for line in lines:
        stripped = line.rstrip(b"\n")
        if match := _BEGUN.match(stripped):
            begun[match[1]] = stripped.removesuffix(b" <unfinished ...>")
            continue
        if match := _RESUMED.match(stripped):
            stripped = begun.pop(match[1]) + match[2]
        did = _read(stripped, folder)
        if did is None or did.name.endswith(FLEETING) or (did.what == "create" and did.name in there):
            continue
        if did.what == "create":
            there.add(did.name)
            births[did.name] = births.get(did.name, -1) + 1
        yield replace(did, birth=births.get(did.name, 0))
        if did.what == "unlink":
            there.discard(did.name)


def _read(line: bytes, folder: bytes) -> Did | None:
    """Return what a line tells; None of what failed, or was about nothing in the folder."""
    told = _CALL.match(line)
    if told is None or int(told[4]) < 0:
        return None
    call, arguments = told[2].decode(), told[3]
    texts = [_bytes(text) for text in _TEXT.findall(arguments)]
    handle = _HANDLE.match(arguments)
    path = texts[0] if call in ("openat", "unlink", "unlinkat") else _bytes(handle[1]) if handle else b""
    name = _inside(path, folder)
    if name is None or (call == "openat" and b"O_CREAT" not in arguments):
        return None
    number = arguments.rpartition(b", ")[2]
    did = {
        "openat": lambda: Did("create", name),
        "unlink": lambda: Did("unlink", name),
        "unlinkat": lambda: Did("unlink", name),
        "pwrite64": lambda: Did("write", name, at=int(number), data=texts[0]),
        "write": lambda: Did(
            "write", name, at=-1, data=texts[0]
        ),  # at its end: only the ledger is written so
        "ftruncate": lambda: Did("truncate", name, at=int(number)),
        "fsync": lambda: Did("sync", name),
        "fdatasync": lambda: Did("sync", name),
    }.get(call)
    assert did is not None, f"the model of the disk does not know {call}: {line[:300]!r}"
    written = len(texts[0]) if call in ("pwrite64", "write") else int(told[4])
    assert call == "openat" or written == int(told[4]), f"a short write of {name}: {line[:300]!r}"
    return did()


def _inside(path: bytes, folder: bytes) -> str | None:
    """Return a path's name in the folder."""
    if path == folder:
        return "."
    return os.fsdecode(path[len(folder) + 1 :]) if path.startswith(folder + b"/") else None


def _bytes(text: bytes) -> bytes:
    return bytes.fromhex(text.replace(b"\\x", b"").decode())
