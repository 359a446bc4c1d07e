"""Run command lines, each in a fork of this process, which has imported what they need.

Reads a request per line, `[folder, environment, arguments]`, and answers with `[code, out, err]`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import click

from everloop.cli import main
from everloop.cli.group import COMMANDS, group


def run(folder: str, env: dict[str, str], arguments: list[str]) -> list[Any]:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid = os.fork()
        if pid == 0:
            become(folder, env, arguments, out, err)
        _, status = os.waitpid(pid, 0)
        out.seek(0)
        err.seek(0)
        return [os.waitstatus_to_exitcode(status), out.read(), err.read()]


def become(folder: str, env: dict[str, str], arguments: list[str], out: IO[str], err: IO[str]) -> None:
    """Be the process of this command line, and end like it."""
    os.chdir(folder)
    os.environ.update(env)
    tempfile.tempdir = None  # TMPDIR may have another value
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    sys.exit(main(arguments))


if __name__ == "__main__":
    for name in COMMANDS:
        group.get_command(click.Context(group), name)
    for request in sys.stdin:
        print(json.dumps(run(*json.loads(request))), flush=True)
