"""The command line: parse, one function call, print.

* `group` - the commands, each imported when it is asked for
* `exits` - the exit codes, and which error means which
* `target` - from `module:app`, a file, or nothing at all to an `App`
* `reading` - the store behind an app or a URL, opened for one command
* `view`, `tables`, `times` - one call as JSON; rows as a table; times for humans
* `terminal`, `live` - what the terminal can show; a line that is drawn anew
* `stopping`, `limits` - what ends a worker; `supervisor`, `control` - several workers, and what they say;
  `health` - /healthz and /readyz
* `worker`, `submit`, `ls`, `show`, `retry`, `cancel`, `demo` - one command each
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given in (["--version"], ["-V"]):
        from everloop._version import __version__

        print(f"everloop {__version__}")
        return 0
    from everloop.cli.group import run

    return run(given)
