"""The seed of what tests draw at random is constant, unless somebody names one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.seeds import ALWAYS, VARIABLE, chosen, seed

TESTS = Path(__file__).resolve().parents[1]


def test_it_is_always_the_same_and_says_how_to_have_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)

    assert not chosen()
    assert seed() == seed() == ALWAYS
    assert capsys.readouterr().out == f"EVERLOOP_SEED={ALWAYS}\n" * 2


def test_it_is_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "77")

    assert chosen()
    assert seed() == 77
    assert capsys.readouterr().out == "EVERLOOP_SEED=77\n"


@pytest.mark.parametrize("wrong", ["0", "-1", "1.5", "often"])
def test_what_is_no_seed_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv(VARIABLE, wrong)

    with pytest.raises(ValueError, match=f"EVERLOOP_SEED is '{wrong}'; it must be a whole number from 1 on"):
        seed()


def test_no_test_draws_a_seed_of_its_own() -> None:
    own = "random." + "randrange"
    sources = {path.relative_to(TESTS): path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py")}

    assert [str(path) for path, source in sources.items() if own in source and path.parts[0] != "sim"] == []
