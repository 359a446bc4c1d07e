"""Founding program 2 on MySQL: only its import is changed, and it prints what it has printed."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.processes import run_program

FOUNDING = Path(__file__).resolve().parents[2] / "examples" / "founding"


def test_it_prints_what_its_twin_prints(mariadb_url: str, tmp_path: Path) -> None:
    env = {"MYSQL": mariadb_url, "PYTHONWARNINGS": "ignore"}
    twin = run_program(FOUNDING / "p2_mysql_asyncio.py", folder=tmp_path, env=env, name="twin").checked()
    ours = run_program(FOUNDING / "p2_mysql.py", folder=tmp_path, env=env, name="ours").checked()

    assert ours.lines == twin.lines == ["row ('first',)", "row (2,)"]
    assert ours.err == ""


def test_only_the_import_differs() -> None:
    ours = (FOUNDING / "p2_mysql.py").read_text(encoding="utf-8").splitlines()[1:]
    twin = (FOUNDING / "p2_mysql_asyncio.py").read_text(encoding="utf-8").splitlines()[1:]

    differs = [(a, b.partition("  #")[0]) for a, b in zip(ours, twin, strict=True) if a != b]

    assert differs == [("from everloop import aiomysql", "import aiomysql")]
