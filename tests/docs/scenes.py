"""A scene: a program, what continues it, and the commands that use it, run in one fresh folder."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.blocks import ROOT, BadBlock, Block

LIMIT_S = 50
#: What puts a block into the scene of the one before it.
FOLLOWS = {"continues", "run", "prints"}
#: The server's URL as documents write it, behind the name of its driver; tests put their own there.
SHOWN_URL = re.compile(r"(?<=://)shop:secret@localhost/shop\b")


@dataclass
class Step:
    """A program or some commands; `printed` is what the document says that it prints."""

    block: Block
    text: str
    printed: Block | None = None

    def append(self, block: Block) -> None:
        """Add a program at the line where it stands in its document: tracebacks then name that line."""
        self.text += "\n" * (block.line - 1 - self.text.count("\n")) + block.text


@dataclass
class Scene:
    """Steps that share a folder."""

    steps: list[Step]

    @property
    def place(self) -> str:
        return self.steps[0].block.place

    @property
    def server(self) -> str | None:
        """The server that it needs, as the fixtures of `tests/helpers/servers` name it."""
        return self.steps[0].block.directives.get("server")


def scenes(blocks: Iterable[Block], prelude: str = "") -> Iterator[Scene]:
    """Yield the scenes of a document, in order; a program's first line is the prelude."""
    scene: Scene | None = None
    for block in blocks:
        if not runs(block):
            continue
        if scene is None or not FOLLOWS & block.directives.keys():
            if scene is not None:
                yield scene
            if FOLLOWS & block.directives.keys():
                raise BadBlock(f"{block.place}: there is no block before it to follow")
            scene = Scene([])
        add(scene, block, prelude)
    if scene is not None:
        yield scene


def runs(block: Block) -> bool:
    """Tell whether a block takes part in a scene."""
    if block.language == "python":
        return "no-run" not in block.directives
    return bool(block.directives.keys() & {"run", "prints"})


def add(scene: Scene, block: Block, prelude: str) -> None:
    last = scene.steps[-1] if scene.steps else None
    if "prints" in block.directives and last:
        last.printed = block
    elif block.language == "console":
        scene.steps.append(Step(block, block.text))
    elif (
        last
        and last.block.language == "python"
        and not {**last.block.directives, **block.directives}.get("file")
    ):
        last.append(block)
    else:
        step = Step(block, prelude)
        step.append(block)
        scene.steps.append(step)


def play(scene: Scene, folder: Path, url: str = "") -> None:
    """Run the steps; fail with what they printed. `url` is the store of a scene that needs a server."""

    def ours(text: str) -> str:
        return SHOWN_URL.sub(lambda _: url.partition("://")[2], text) if url else text

    for step in scene.steps:
        if step.block.language == "python":
            name = step.block.directives.get("file", "example.py")
            (folder / name).write_text(ours(step.text), encoding="utf-8")
            printed = run_command([sys.executable, "-W", "error", name], folder, step.block.place, url)
            if step.printed:
                same_output(step.printed.text, printed, step.printed)
        else:
            for command, shown in commands(step.block.text):
                printed = run_command(["bash", "-c", ours(command)], folder, step.block.place, url)
                same_output(shown, printed, step.block)


def commands(console: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block, and what it is shown to print."""
    for entry in f"\n{console}".split("\n$ ")[1:]:
        command, _, shown = entry.replace("\\\n", " ").partition("\n")
        yield command, shown


def run_command(command: list[str], folder: Path, place: str, store: str = "") -> str:
    """Run it in the folder, as a stranger's shell would; return what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EVERLOOP_")}
    environment |= {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"}
    if store:
        environment["EVERLOOP_STORE"] = store
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )

    assert done.returncode == 0, f"{place}: ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def same_output(shown: str, printed: str, block: Block) -> None:
    """Compare; `...` in what is shown stands for anything."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    same = doctest.OutputChecker().check_output(shown, printed, flags)

    assert same, f"{block.place} shows\n{shown}\nand it printed\n{printed}"
