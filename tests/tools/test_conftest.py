"""What `tests/conftest.py` gives every test does what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from suites import ROOT

PROGRAM = """
import asyncio, threading
import pytest

@pytest.fixture
async def closes_its_task():
    task = asyncio.create_task(asyncio.sleep(60))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

async def test_clean(closes_its_task):
    await asyncio.create_task(asyncio.sleep(0))

async def test_leaks_a_task():
    asyncio.create_task(asyncio.sleep(60), name="stray")

def test_leaks_a_thread():
    threading.Thread(target=threading.Event().wait, name="everloop-stray", daemon=True).start()

@pytest.mark.both_loops
async def test_both():
    assert type(asyncio.get_running_loop()).__module__.split(".")[0] in ("asyncio", "uvloop")
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Run the program's tests under our conftest and settings; return what pytest prints."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "test_program.py").write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "test_program.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}  # for the helpers that it imports
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout


def test_what_closes_its_own_is_left_alone(output: str) -> None:
    assert "::test_clean PASSED" in output


def test_a_task_left_pending_is_told(output: str) -> None:
    assert "asyncio tasks left pending: [<Task pending name='stray'" in output


def test_a_thread_left_alive_is_told(output: str) -> None:
    assert "threads left alive: everloop-stray" in output


def test_a_test_runs_on_both_loops_where_marked(output: str) -> None:
    assert "::test_both[asyncio] PASSED" in output
    assert "::test_both[uvloop] PASSED" in output
