"""What is judged to be wrong with a store, and what is said to be done about it."""

from __future__ import annotations

from typing import Any

from everloop._checkup import Facts, Finding, examine
from everloop._core.looks import Backlog, Gauges, SessionLook, Setting, Vitals
from everloop._core.records import Lane

NOW = 1_700_000_000_000_000
SECOND = 1_000_000
WORKER = SessionLook(7, "shop", "worker", "here", 42, NOW - 60 * SECOND, NOW + SECOND, 3)
COMMAND = "everloop worker shop:app"


def facts(**other: Any) -> Facts:
    """Return the facts about a store with which all is well, but for some."""
    well: dict[str, Any] = {
        "now": NOW,
        "vitals": Vitals("A 1", 2_500_000, 20, (Setting("fsync", "on", "on", "all is lost"),)),
        "sessions": [WORKER],
        "serving": {("default", "fetch"), ("mail", "send")},
        "backlog": [Backlog(Lane("shop", "default", "fetch"), 2, NOW - SECOND)],
        "functions": ["fetch", "send"],
        "command": COMMAND,
        "finished": 1,
        "keep": "all is kept for a day",
        "swept": NOW - 120 * SECOND,
    }
    return Facts(**{**well, **other})


def troubles(**other: Any) -> list[Finding]:
    return [each for each in examine(facts(**other)) if each.level != "ok"]


def test_all_is_well() -> None:
    assert examine(facts()) == [
        Finding("ok", "setting", "fsync is on"),
        Finding("ok", "clock", "the database's clock and this machine's agree"),
        Finding("ok", "workers", "1 worker in the queues default, mail, with 3 calls"),
        Finding("ok", "waiting", "2 calls ready, none for long"),
        Finding("ok", "leases", "no session is overdue"),
        Finding("ok", "keeping", "1 finished call in 2.5 MB; all is kept for a day; last pruned 2 min ago"),
    ]


def test_a_setting_that_may_lose_calls() -> None:
    settings = (Setting("fsync", "off", "on", "all is lost"), Setting("sync", "", "1", "some is lost"))
    assert troubles(vitals=Vitals("A 1", 0, 0, settings)) == [
        Finding("wrong", "setting", "fsync is off: all is lost", "set fsync to on"),
        Finding("wrong", "setting", "sync is not known: some is lost", "set sync to 1"),
    ]


def test_clocks_that_disagree() -> None:
    for ahead, said in ((9 * SECOND, "9 s ahead of"), (-8 * SECOND, "8 s behind")):
        told = f"the database's clock is {said} this machine's"
        assert troubles(vitals=Vitals("A 1", 0, ahead, ())) == [
            Finding("wrong", "clock", told, "synchronise both (NTP)")
        ]


def test_no_worker_at_all() -> None:
    run = f"run {COMMAND}"
    assert troubles(sessions=[], serving=set(), backlog=[]) == [
        Finding("note", "workers", "no worker is running", run)
    ]
    assert troubles(sessions=[], serving=set()) == [
        Finding("wrong", "workers", "no worker is running", run),
        Finding(
            "wrong",
            "waiting",
            "no worker serves 'fetch' in queue 'default': 2 ready calls, the oldest for 1 s",
            f"{run} --queues default",
        ),
    ]


def test_a_name_that_nobody_knows_any_more() -> None:
    backlog = [Backlog(Lane("shop", "default", "fetsh"), 1, NOW - 7200 * SECOND)]
    assert troubles(backlog=backlog) == [
        Finding(
            "wrong",
            "waiting",
            "no worker serves 'fetsh' in queue 'default': 1 ready call, the oldest for 2 h",
            "the app has no task function 'fetsh'; did you mean 'fetch'?; give the one that takes its place "
            "aliases=['fetsh'], or cancel the calls",
        )
    ]


def test_workers_that_are_behind() -> None:
    backlog = [Backlog(Lane("shop", "mail", "send"), 1200, NOW - 300 * SECOND)]
    assert troubles(backlog=backlog) == [
        Finding(
            "note",
            "waiting",
            "1,200 calls are ready, the oldest for 5 min",
            "start more workers, or give them more `--concurrency`",
        )
    ]


def worker_with(**gauges: int) -> SessionLook:
    return WORKER._replace(
        gauges=Gauges(**{"memory": 40_000_000, "lag": 2_400, "running": 1, "slots": 9} | gauges)
    )


def test_workers_that_are_well_tell_so() -> None:
    sessions = [WORKER, worker_with(), worker_with(lag=30_000, memory=90_000_000, memory_limit=100_000_000)]
    assert Finding(
        "ok", "gauges", "loops answer within 30 ms, and no worker holds more than 90 MB"
    ) in examine(facts(sessions=sessions))
    assert troubles(sessions=sessions) == []


def test_a_loop_that_is_blocked() -> None:
    for lag, level, said in ((600_000, "note", "0.6 s"), (75 * SECOND, "wrong", "75.0 s")):
        assert troubles(sessions=[worker_with(lag=lag), worker_with()]) == [
            Finding(
                level,  # type: ignore[arg-type]  # one of the three
                "gauges",
                f"the worker on here (session 7, pid 42) let others wait for {said}: something blocks its "
                "event loop",
                "write code that blocks as `def` (it runs in a thread) or with run='process'; after 5 s the "
                "worker's log shows the line",
            )
        ]
    gone = worker_with(lag=75 * SECOND)._replace(until=NOW - SECOND)
    assert [each for each in examine(facts(sessions=[WORKER, gone])) if each.where == "gauges"] == []


def test_memory_that_grows_near_its_limit() -> None:
    assert troubles(sessions=[worker_with(memory=1_910_000_000, memory_limit=2_000_000_000)]) == [
        Finding(
            "note",
            "gauges",
            "the worker on here (session 7, pid 42) holds 1,910 MB of 2,000 MB, and is replaced beyond that",
            "look for what keeps growing, or raise --max-memory",
        )
    ]


def test_sessions_that_nobody_reaps() -> None:
    over = WORKER._replace(number=3, until=NOW - 90 * SECOND, leased=2)
    idle = WORKER._replace(number=4, until=NOW - 2 * 86_400 * SECOND, leased=0, kind="client")
    do = f"any process of the app takes them over: run {COMMAND}"
    assert troubles(sessions=[WORKER, over, idle]) == [
        Finding(
            "wrong", "leases", "session 3 (worker, here, pid 42) ended 2 min ago and still holds 2 calls", do
        ),
        Finding(
            "note", "leases", "session 4 (client, here, pid 42) ended 2 d ago and still holds 0 calls", do
        ),
    ]


def test_what_is_not_pruned() -> None:
    size = "1 finished call in 2.5 MB"
    assert troubles(keep=None) == [
        Finding("note", "keeping", f"{size}, kept for ever", "App(keep=Keep()) prunes old ones")
    ]
    for swept, ago in ((None, "never pruned"), (NOW - 7200 * SECOND, "last pruned 2 h ago")):
        said = f"{size}; all is kept for a day; {ago}"
        assert troubles(swept=swept) == [Finding("note", "keeping", said, f"run {COMMAND}, which prunes")]
    assert examine(facts(functions=None, keep=None, swept=None))[-1] == Finding("ok", "keeping", size)
