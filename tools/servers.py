"""See that the database servers of the tests are installed; install them where that needs no question.

Prints what it found. Ends with 1 and advice when one is missing.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Run as a program, this folder is where modules are looked for; the servers are beside it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.helpers.servers import install
from tests.helpers.servers.binaries import ServerMissing


def main() -> int:
    if install.skipped():
        print(f"everloop: {install.SKIP}=1: EVERY TEST THAT NEEDS A DATABASE SERVER IS SKIPPED", flush=True)
        return 0
    code = 0
    for wanted in install.WANTED:
        try:
            print(f"everloop: {install.ensure(wanted).told}", flush=True)
        except ServerMissing as missing:
            print(f"everloop: {missing}", file=sys.stderr, flush=True)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
