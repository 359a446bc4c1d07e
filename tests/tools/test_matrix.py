"""The newest servers and Python run in a folder of their own, and nothing of that is left or seen outside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matrix
import pytest
from matrix import Sid


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one commit."""
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    (root / "src" / "shop.py").write_text("kept\n", encoding="utf-8")
    (root / "gone.py").write_text("gone\n", encoding="utf-8")
    (root / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    (root / ".gitignore").write_text("*.db\n", encoding="utf-8")
    who = ["-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "All there is"]):
        subprocess.run(["git", "-C", root, *command], check=True)
    return root


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that would have been run, without what puts them apart; none of them is."""
    commands: list[str] = []

    def note(command: list[str], _environment: dict[str, str] | None = None) -> None:
        commands.append(" ".join(command).rpartition(' exec "$@" sh ')[2])

    monkeypatch.setattr(matrix, "quietly", note)
    return commands


# -- what it needs ------------------------------------------------------------------------------------------


def test_it_says_that_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(SystemExit) as caught:
        matrix.see_that_it_can_run()

    assert str(caught.value) == (
        "everloop: make test-matrix fills a folder with Debian sid and runs the tests in there, which takes "
        f"Linux and root; this is {sys.platform}, as user 1000. Run: sudo make test-matrix"
    )


def test_it_names_every_program_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SystemExit) as caught:
        matrix.see_that_it_can_run()

    assert str(caught.value) == (
        "everloop: make test-matrix needs chroot, debootstrap, git, mount, setpriv, unshare, and found none "
        "of these on PATH; install them "
        "(Debian, Ubuntu: sudo apt-get install coreutils debootstrap git mount util-linux)"
    )


def test_it_installs_what_is_missing_where_it_can(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, done: list[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "platform", "linux")
    have = {"apt-get", *matrix.PROGRAMS} - {"debootstrap"}
    monkeypatch.setattr(
        matrix, "quietly", lambda command: (done.append(" ".join(command)), have.add("debootstrap"))
    )
    monkeypatch.setattr(shutil, "which", lambda name: name if name in have else None)

    matrix.see_that_it_can_run()

    assert done == [
        "apt-get -q -o DPkg::Lock::Timeout=300 update",
        "apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends debootstrap",
    ]


def test_a_command_that_fails_is_told_with_what_it_printed() -> None:
    matrix.quietly(["sh", "-c", "echo unheard"])

    with pytest.raises(SystemExit) as caught:
        matrix.quietly(["sh", "-c", "echo no room; exit 3"])

    assert str(caught.value) == "everloop: `sh -c echo no room; exit 3` ended with 3; it printed:\nno room\n"


# -- what it copies -----------------------------------------------------------------------------------------


def test_the_copy_has_the_files_that_git_knows_or_would_add(project: Path, tmp_path: Path) -> None:
    (project / "new.py").touch()
    (project / "shop.db").touch()
    (project / "gone.py").unlink()
    there = tmp_path / "sid" / "everloop"
    there.mkdir(parents=True)
    (there / "left.py").touch()

    Sid(tmp_path / "sid").copy(project)

    copied = sorted(str(path.relative_to(there)) for path in there.rglob("*") if path.is_file())
    assert copied == [".gitignore", "new.py", "pyproject.toml", "src/shop.py"]


def test_it_says_which_commit_it_runs(project: Path) -> None:
    assert re.fullmatch(r"commit [0-9a-f]{12}", matrix.revision(project))

    (project / "new.py").touch()

    assert re.fullmatch(r"commit [0-9a-f]{12}, with changes", matrix.revision(project))


# -- the folder ---------------------------------------------------------------------------------------------


def test_the_folder_is_filled_once(tmp_path: Path, done: list[str], project: Path) -> None:
    sid = Sid(tmp_path / "sid")

    for _ in range(2):
        sid.fill()
        sid.install()
        sid.copy(project)
        sid.install_project()

    packages = " ".join(matrix.PACKAGES)
    what = "/everloop[all] --group /everloop/pyproject.toml:test"
    assert [command.rpartition("debootstrap ")[2] for command in done] == [
        f"--variant=minbase sid {sid.folder} http://deb.debian.org/debian",
        "apt-get -q update",
        f"apt-get -q install -y {packages}",
        "apt-get -q clean",
        "python3.14 -m venv --clear /venv",
        "/venv/bin/python -m pip install -qq pip>=25.1",
        f"/venv/bin/python -m pip install -qq --upgrade --editable {what}",
    ]
    assert (sid.folder / "usr/sbin/policy-rc.d").read_text(encoding="utf-8") == "#!/bin/sh\nexit 101\n"


def test_the_project_is_installed_again_when_it_needs_something_else(
    tmp_path: Path, done: list[str], project: Path
) -> None:
    sid = Sid(tmp_path / "sid")
    for needs in ("a", "a", "b"):
        (project / "pyproject.toml").write_text(needs, encoding="utf-8")
        sid.copy(project)
        sid.install_project()

    assert [command for command in done if "venv --clear" in command] == [
        "python3.14 -m venv --clear /venv"
    ] * 2


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, done: list[str]) -> None:
    (tmp_path / "treasure").touch()

    with pytest.raises(SystemExit) as caught:
        Sid(tmp_path).fill()

    assert str(caught.value) == (
        f"everloop: {tmp_path} is neither empty nor one that make test-matrix has begun to fill; name "
        "another one in EVERLOOP_MATRIX, or remove it"
    )
    assert (tmp_path / "treasure").exists()
    assert done == []


def test_a_folder_that_was_half_filled_is_filled_anew(tmp_path: Path, done: list[str]) -> None:
    (tmp_path / "debootstrap").mkdir()
    (tmp_path / "half").touch()

    Sid(tmp_path).fill()

    assert not (tmp_path / "half").exists()
    assert len(done) == 1


# -- apart --------------------------------------------------------------------------------------------------


@pytest.fixture
def allowed() -> None:
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("namespaces are Linux's, and unshare makes them")
    tried = subprocess.run(matrix.apart("true"), capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this user may not make namespaces here: {tried.stderr}")


@pytest.mark.usefixtures("allowed")
def test_a_mount_is_never_seen_outside(tmp_path: Path) -> None:
    mounts = f"mount -t tmpfs tmpfs {tmp_path} && touch {tmp_path}/inside && ls {tmp_path}"

    done = subprocess.run(matrix.apart("sh", "-c", mounts), capture_output=True, text=True, check=True)

    assert done.stdout == "inside\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("allowed")
def test_every_process_ends_with_the_program() -> None:
    # What holds the other end of the pipe is a daemon of a daemon.
    lives = "setsid sh -c 'setsid sleep 600 & echo started; exec sleep 600' & wait"
    program = (
        "import subprocess, sys\n"
        f"sys.path.insert(0, {str(Path(matrix.__file__).parent)!r})\n"
        "import matrix\n"
        f"subprocess.run(matrix.apart('sh', '-c', {lives!r}))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"

        process.kill()

        assert process.stdout.read() == ""  # the pipe ends with the last who could write


def test_how_it_ends_is_how_the_suites_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sid, "_inside", lambda _self, command: list(command))

    assert Sid(tmp_path).run("/bin/sh", "-c", "exit 3") == 3
