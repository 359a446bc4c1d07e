"""The app whose tasks are the bodies of random programs; what they note goes to a file per program.

`RANDOM_FOLDER` names the folder of the files, `RANDOM_UNIT` the seconds of one unit of time.
"""

from __future__ import annotations

import os
from pathlib import Path

from everloop import App, TaskFunction
from tests.helpers.random_programs import Interpreter, Node

Body = TaskFunction[[int, Node], str]


def make_body(app: App, folder: Path, unit: float) -> Body:
    """Declare the task function that runs a body of the program of a seed."""

    @app.task
    async def body(seed: int, node: Node) -> str:
        with (folder / f"{seed}.trace").open("a", encoding="utf-8", buffering=1) as trace:

            def note(line: str) -> None:
                trace.write(f"{line}\n")

            return await Interpreter(lambda child: body(seed, child), note, unit).run(node)

    return body


if "RANDOM_FOLDER" in os.environ:
    app = App("random")
    make_body(app, Path(os.environ["RANDOM_FOLDER"]), float(os.environ["RANDOM_UNIT"]))
