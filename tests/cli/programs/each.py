"""Run several command lines, each in a fork of a process that has imported what they need.

Reads a list of argument lists from standard input, and prints a list of [code, out, err].
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from typing import IO, Any

import click

from everloop.cli import main
from everloop.cli.group import COMMANDS, group


def run(arguments: list[str]) -> list[Any]:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid = os.fork()
        if pid == 0:
            become(arguments, out, err)
        _, status = os.waitpid(pid, 0)
        out.seek(0)
        err.seek(0)
        return [os.waitstatus_to_exitcode(status), out.read(), err.read()]


def become(arguments: list[str], out: IO[str], err: IO[str]) -> None:
    """Be the process of this command line, and end like it."""
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    sys.exit(main(arguments))


if __name__ == "__main__":
    for name in COMMANDS:  # imports each, before the forks
        group.get_command(click.Context(group), name)
    print(json.dumps([run(arguments) for arguments in json.load(sys.stdin)]))
