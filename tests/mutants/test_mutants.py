"""The mutants apply, a few of them are tried, and one that survives is shown."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import mutants
import pytest

from tests.helpers.seeds import seed
from tests.mutants.sabotage import MUTANTS, Mutant

#: How many are tried in each run.
SAMPLE = 3
#: Those that take longer than a few seconds are left to `make mutants`.
SLOW = "tests/powerloss"

HARMLESS = Mutant(
    "a comment is another one",
    "src/everloop/engine/keeper.py",
    "#: Seconds between looks at dead sessions",
    "#: How many seconds there are between looks at dead sessions",
    ("tests/unit/test_witness.py",),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_applies(mutant: Mutant) -> None:
    changed = [line for line in mutants.difference(mutant).splitlines()[2:] if line[0] in "+-"]
    assert changed
    assert all((mutants.ROOT / test.partition("::")[0]).exists() for test in mutant.tests if ".py" in test)


def test_there_are_at_least_thirty_and_each_is_another() -> None:
    assert len(MUTANTS) >= 30
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.timeout(600)
def test_a_few_of_them_are_caught() -> None:
    quick = [mutant for mutant in MUTANTS if not mutant.tests[0].startswith(SLOW)]

    verdicts = mutants.judge_all(random.Random(seed()).sample(quick, SAMPLE))

    assert [verdict.why for verdict in verdicts if not verdict.caught] == []


@pytest.fixture
def tree() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield mutants.copy(Path(name))


@pytest.mark.timeout(120)
def test_one_that_survives_is_shown_and_ends_the_program_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mutants, "MUTANTS", (HARMLESS,))

    assert mutants.main([]) == 1

    told = capsys.readouterr().out
    assert "SURVIVED" in told
    assert f"-{HARMLESS.old}" in told
    assert f"+{HARMLESS.new}" in told
    assert "0 caught, 1 survived" in told


@pytest.mark.timeout(120)
def test_tests_that_cannot_be_run_catch_nothing(tree: Path) -> None:
    broken = Mutant(
        "broken", HARMLESS.file, HARMLESS.old, "what is no Python", ("tests/unit/test_missing.py",)
    )

    assert not mutants.judge(tree, broken).caught
    assert HARMLESS.old in (tree / HARMLESS.file).read_text(encoding="utf-8")


def test_a_text_that_does_not_stand_there_once_is_told() -> None:
    with pytest.raises(ValueError, match="'a comment is another one' replaces a text that stands 0 times in"):
        mutants.mutated(HARMLESS, "nothing of it")
    with pytest.raises(ValueError, match="stands 2 times"):
        mutants.mutated(HARMLESS, f"{HARMLESS.old}\n{HARMLESS.old}\n")
