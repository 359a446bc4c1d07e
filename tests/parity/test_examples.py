"""The examples run from anywhere, and do what they say."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.processes import importing_from, run_program, started, worker
from tests.helpers.site import slow_site

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

#: A line of the webhooks: seconds, receiver, how it ended, attempts.
LINE = re.compile(r" *([0-9.]+) s  (\w+) +(?:http://\S+ )?(.*) \((\d+) attempts\)")


def run(example: str, *arguments: str, folder: Path) -> list[str]:
    """Run an example in a folder of its own; it prints nothing on standard error but where its calls are."""
    ran = run_program(EXAMPLES / f"{example}.py", *arguments, folder=folder, name=example).checked()
    (where,) = ran.err.splitlines()
    assert where == f"everloop: the calls of {example!r} are stored in {folder}/.everloop/{example}.db"
    return ran.lines


def test_a_tree_of_depth_50_grows_in_one_slot(tmp_path: Path) -> None:
    (line,) = run("tree", folder=tmp_path)

    assert line.startswith("51 leaves on a tree 50 deep, grown by 101 tasks in one slot: ")


def test_a_pipeline_books_what_can_be_parsed(tmp_path: Path) -> None:
    *lines, last = run("pipeline", folder=tmp_path)

    assert sorted(lines) == [
        "   monday: 5 pieces booked",
        "  tuesday: 5 pieces booked",
        "wednesday: nothing booked, invalid literal for int() with base 10: 'many'",
    ]
    assert last == "   in all: 10 pieces"


def test_its_callbacks_run_without_the_program_that_asked_for_them(tmp_path: Path) -> None:
    text = (EXAMPLES / "pipeline.py").read_text(encoding="utf-8")
    submitting = f"{text[: text.index('    # From here on')]}\n\nimport asyncio\nasyncio.run(main())\n"
    (tmp_path / "submitting.py").write_text(
        submitting.replace('App("pipeline")', 'App("pipeline", embed=False)')
    )
    run_program("submitting.py", folder=tmp_path).checked()

    with worker("pipeline:app", folder=tmp_path, env=importing_from(EXAMPLES)) as serving:
        for line in ("monday: 5 pieces booked", "tuesday: 5 pieces booked", "wednesday: nothing booked"):
            serving.until(line)


def test_webhooks_are_delivered_to_receivers_of_each_temper(tmp_path: Path) -> None:
    lines = run("webhooks", folder=tmp_path)
    said = {
        match[2]: (float(match[1]), match[3], int(match[4]))
        for line in lines
        if (match := LINE.fullmatch(line))
    }

    assert {name: (text, attempts) for name, (_, text, attempts) in said.items()} == {
        "steady": ("delivered, 200", 1),
        "flaky": ("delivered, 200", 3),
        "busy": ("delivered, 200", 1),
        "closed": ("wants no more events", 1),
    }
    assert said["busy"][0] >= 1.0, "it was asked twice to wait for half a second"


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_scraper_goes_on_where_it_was(end: signal.Signals, tmp_path: Path) -> None:
    answered: Counter[str] = Counter()
    with slow_site(answered=answered) as site:
        # Twenty at a time: the first twenty are quick, the others take a while.
        quick, slow = ([f"{site}/{x}?{n}" for n in range(20)] for x in (0, 0.4))
        (tmp_path / "urls.txt").write_text("\n".join(quick + slow), encoding="utf-8")
        with started(EXAMPLES / "scraper.py", "urls.txt", folder=tmp_path, name="first") as first:
            first.until("   20 slow but sure")
            first.signal(end)
            ran = first.ended()
        assert ran.code != 0
        if end is signal.SIGINT:
            assert "stopped; run it again, and it goes on from here" in ran.err
        began = time.monotonic()
        lines = (
            run_program(EXAMPLES / "scraper.py", "urls.txt", folder=tmp_path, name="second").checked().lines
        )

    assert re.fullmatch(r"40 pages, 1,120 bytes, \d+\.\d s", lines[-1])
    assert len(lines) == 41
    assert [answered[url.removeprefix(site)] for url in quick] == [1] * 20, (
        "fetched before: not fetched again"
    )
    assert time.monotonic() - began < 25
