"""`retry` and `cancel`."""

from __future__ import annotations

from tests.cli.conftest import Shop
from tests.cli.test_reading import NO_ID


def test_retry_submits_a_new_call_of_the_old_one(shop: Shop) -> None:
    ids = shop.fill()
    ran = shop.run("retry", "shop:app", ids["failed"], ids["done"]).checked()
    again = [shop.show(id_) for id_ in ran.lines]
    old = shop.show(ids["failed"])

    assert [call["retry_of"] for call in again] == [ids["failed"], ids["done"]]
    for name in ("function", "queue", "args", "kwargs", "priority", "policy"):
        assert again[0][name] == old[name]
    assert (again[0]["state"], again[1]["tags"], old["state"]) == ("ready", ["a", "b"], "failed")
    with shop.worker():
        result = shop.run("submit", "shop:app", "add", "[0]", "--wait").checked()  # comes after them
    assert result.out == "1\n"
    assert shop.show(ran.lines[1])["result"] == 3


def test_retry_says_of_each_why_not(shop: Shop) -> None:
    ids = shop.fill()
    live = shop.run("retry", "--db", shop.store, ids["due"])
    some = shop.run("retry", "--db", shop.store, ids["due"], NO_ID, ids["done"])

    assert (live.code, live.out) == (1, "")
    assert "is scheduled: only a finished call can be retried" in live.err
    assert (some.code, len(some.lines)) == (3, 1)
    assert f"no call has the id '{NO_ID}'" in some.err


def test_cancel_ends_what_waits_and_leaves_what_is_final(shop: Shop) -> None:
    ids = shop.fill()
    ran = shop.run(
        "cancel", "--db", shop.store, ids["due"], ids["cancelled"], "--message", "wrong \x1b[7maddress"
    )
    assert ran.checked().lines == [f"{ids['due']} cancelled", f"{ids['cancelled']} cancelled"]
    assert shop.show(ids["due"])["state"] == "cancelled"

    final = shop.run("cancel", "shop:app", ids["done"])
    assert (final.code, final.out) == (1, "")
    assert "is succeeded: there is nothing to cancel" in final.err
    unknown = shop.run("cancel", "shop:app", NO_ID, ids["due"])
    assert (unknown.code, unknown.lines) == (3, [f"{ids['due']} cancelled"])


def test_cancel_asks_the_worker_of_what_runs(shop: Shop) -> None:
    with shop.worker():
        (id_,) = shop.run("submit", "shop:app", "hold", f'["{shop.gate()}"]').checked().lines
        shop.wait_until_begun()
        assert shop.run("cancel", "shop:app", id_).checked().lines == [f"{id_} asked"]
        # Whatever comes after it in the worker's inbox has been seen when this is done.
        ran = shop.run("submit", "shop:app", "add", "[1]", "--wait").checked()

    assert ran.out == "2\n"
    assert shop.show(id_)["state"] == "cancelled"
