"""`logs`: what runs have logged, for humans and programs, and while it comes."""

from __future__ import annotations

import json
import re

from tests.cli.conftest import Shop

NO_ID = "0198c0de-0000-7000-8000-000000000001"


def test_what_a_worker_ran_is_shown(shop: Shop) -> None:
    id_ = shop.run("submit", "shop:app", "tell", '["\\u001b[31mred"]').checked().out.strip()
    with shop.worker():
        followed = shop.run("logs", "shop:app", id_, "--follow", "-o", "jsonl").checked()
    told = [json.loads(line) for line in followed.lines]

    assert [(line["attempt"], line["level"], line["logger"], line["text"]) for line in told] == [
        (1, "print", "", "printed \x1b[31mred"),
        (1, "INFO", "shop", "informed of \x1b[31mred"),
        (1, "WARNING", "shop", "warned\nof it"),
    ]
    assert json.loads(shop.run("logs", "shop:app", id_, "-o", "json").checked().out) == told
    shown = shop.run("logs", "--db", shop.store, id_).checked().lines
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"{time} print    printed \[31mred", shown[0])
    assert re.fullmatch(rf"{time} INFO     shop: informed of \[31mred", shown[1])
    assert shown[2].endswith(" WARNING  shop: warned")
    assert shown[3] == "    of it"


def test_a_call_without_logs_and_one_that_is_not_there(shop: Shop) -> None:
    id_ = shop.run("submit", "shop:app", "add", "[1]").checked().out.strip()
    ran = shop.run("logs", "shop:app", id_).checked()
    assert (ran.out, ran.err) == ("", "everloop: nothing was logged\n")
    shop.check_refusals(3, {("logs", "shop:app", NO_ID): "it was not submitted here, or it was pruned"})
    shop.check_refusals(
        2,
        {
            ("logs", "shop:app", id_, id_): "give one id, not 2: everloop logs [APP] ID",
            (
                "logs",
                "shop:app",
                id_,
                "-f",
                "-o",
                "json",
            ): "-o json prints one value, and --follow has no end",
        },
    )
