"""The stores on PostgreSQL and MariaDB: each on a server of its own, with its defaults and fsync on."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import psycopg
import pymysql

from bench.bare import BATCH, Bare, BareMaria, BarePostgres
from bench.figures import Figure, Plan, Rounds
from bench.loops import loop_rate
from bench.measures import cancelling
from bench.measures.latency import idle, sample
from bench.measures.scale import claim_rate
from bench.processes import ProcessError, Running, client, worker
from everloop._core.errors import StoreError
from tests.helpers.servers import binaries, install
from tests.helpers.servers.binaries import Binaries, ServerMissing
from tests.helpers.servers.mariadb import MariaServer
from tests.helpers.servers.postgresql import PostgresServer
from tests.helpers.servers.server import Server

#: Slots of the worker.
CONCURRENCY = 500
#: Calls at once beside a transaction that is open, and seconds in which the server cleans up after it.
AT_ONCE, CLEANED = 20, 2.0
#: Finished calls that one statement makes.
FILLED = 100_000


@dataclass(frozen=True)
class Kind:
    """A kind of server.

    Attributes:
        name: What people call it.
        prefix: Begins the names of its figures.
        find: Finds its programs.
        server: Makes one that is not started yet.
        bare: Its bare driver.
        numbers: A table of the numbers n from {first} to {last}.
        settle: What the server does with a table by itself, some time after it was filled.
        plain: Ends the URL of who speaks no TLS, where the server would; the bare driver speaks none either.
    """

    name: str
    prefix: str
    find: Callable[[], Binaries]
    server: Callable[[], Server]
    bare: Callable[[str], Bare]
    numbers: str
    settle: str
    plain: str = ""

    def url(self, server: Server) -> str:
        """Make a fresh database; return its URL, without TLS."""
        return server.database() + self.plain


POSTGRESQL = Kind(
    "PostgreSQL",
    "postgresql",
    binaries.postgresql,
    PostgresServer,
    BarePostgres,
    "generate_series({first}, {last}) AS s(n)",
    "VACUUM ANALYZE {table}",
)
MARIADB = Kind(
    "MariaDB",
    "mariadb",
    binaries.mariadb,
    MariaServer,
    BareMaria,
    "(SELECT seq AS n FROM seq_{first}_to_{last}) AS s",
    "ANALYZE TABLE {table}",
    "?ssl=false",
)
KINDS = POSTGRESQL, MARIADB
#: Finished calls of the only lane, older than all others, by table.
_FINISHED = {
    "ever_calls": "(seq, id, lane, state, place, root, due, fence, attempt, started) SELECT -n, "
    "concat('0198c0de-0000-7000-8000-', lpad(cast(n AS char(12)), 12, '0')), "
    "(SELECT min(lane) FROM ever_lanes), 'succeeded', 1, -n, 1, 1, 1, 1",
    "ever_payloads": "(seq, args, policy, created) SELECT -n, 'j1[[1],{}]', '', 1",
    "ever_outcomes": "(seq, ended, session, value) SELECT -n, 1, 1, 'j11'",
}


def postgresql(plan: Plan) -> list[Figure]:
    """Everything on PostgreSQL."""
    return _measure(plan, POSTGRESQL)


def mariadb(plan: Plan) -> list[Figure]:
    """Everything on MariaDB."""
    return _measure(plan, MARIADB)


def versions() -> dict[str, str]:
    """Return the versions of the servers that are there, by the name of their measure."""
    found = {kind.prefix: _found(kind) for kind in KINDS}
    return {
        name: f"{'.'.join(map(str, server.version))}, its defaults, fsync on"
        for name, server in found.items()
        if isinstance(server, Binaries)
    }


def missing() -> list[str]:
    """Return the measures whose servers are not there, and say so, unless they are left out on purpose."""
    found = {kind.prefix: _found(kind) for kind in KINDS}
    for name, server in found.items():
        if isinstance(server, ServerMissing) and not install.skipped():
            print(f"{name}: left out: {server}", flush=True)
    return [name for name, server in found.items() if not isinstance(server, Binaries)]


def _found(kind: Kind) -> Binaries | ServerMissing:
    if install.skipped():
        return ServerMissing(f"{install.SKIP}=1")
    try:
        return kind.find()
    except ServerMissing as missing:
        return missing


def _measure(plan: Plan, kind: Kind) -> list[Figure]:
    with kind.server() as server:
        if server.folder.stat().st_dev != plan.folder.stat().st_dev:
            raise ProcessError(
                f"{kind.name} keeps its data in {server.folder}, on another disk than the bench in "
                f"{plan.folder}; start with TMPDIR={plan.folder.parent.parent}, which every user may enter"
            )
        try:
            # At first the server is at rest: what many calls have left it goes on writing for minutes.
            resting = _latency(plan, kind, server)
            return [
                *_throughput(plan, kind, server),
                *resting,
                _cancelling(plan, kind, server),
                _beside_open(plan, kind, server),
                *_full(plan, kind, server),
            ]
        except (StoreError, psycopg.Error, pymysql.MySQLError) as error:
            raise ProcessError(f"{kind.name} failed: {error}") from error


@contextmanager
def _served(plan: Plan, server: Server, url: str, name: str) -> Generator[tuple[Running, Running]]:
    """A worker process and a client process on a fresh database, that is dropped behind them."""
    place = plan.folder / name
    with ExitStack() as stack:
        stack.callback(server.drop, url)
        served = stack.enter_context(worker(place, concurrency=CONCURRENCY, url=url))
        yield served, stack.enter_context(client(place, url=url))


@contextmanager
def _bare(kind: Kind, server: Server) -> Generator[Bare]:
    """The bare driver on a fresh database."""
    url = server.database()
    try:
        with closing(kind.bare(url)) as bare:
            bare.check()
            yield bare
    finally:
        server.drop(url)


def _throughput(plan: Plan, kind: Kind, server: Server) -> list[Figure]:
    count = plan.amount(20_000, 4_000)
    rounds = Rounds()
    with _bare(kind, server) as bare, _served(plan, server, kind.url(server), "calls") as (served, asking):
        asking.ask("gather", count=2_000)
        for _ in range(plan.rounds):
            loop, rates = loop_rate(20_000), bare.rates()
            rounds.note(
                task=1e6 / loop,
                through=1 / (1 / loop + 1 / rates.through),
                insert=1 / (1 / loop + 1 / rates.insert),
            )
            used = served.cpu
            answer = asking.ask("gather", count=count)
            rounds.note(
                calls=count / answer["seconds"],
                client_cpu=answer["cpu"] / count * 1e6,
                worker_cpu=(served.cpu - used) / count * 1e6,
            )
            answer = asking.ask("submit_many", count=count)
            rounds.note(submit=count / answer["submitted"], many=count / answer["seconds"])
    prefix, name = kind.prefix, kind.name
    inserts = f"plain tasks and the same inserts in bare {name}, {BATCH} a statement"
    through = f"plain tasks and the same rows in bare {name}, {BATCH} a statement, one after the other"
    task = "of a plain task"
    return [
        Figure(f"{prefix}.{key}", f"{name}: {what}", rounds[key], unit, limit, limits)
        for key, what, unit, limit, limits in (
            (
                "calls",
                f"{count:,} no-op calls, submit to typed result, worker of {CONCURRENCY} slots",
                "/s",
                through,
                rounds["through"],
            ),
            ("client_cpu", "client CPU per call, gather", "us", task, rounds["task"]),
            ("worker_cpu", "worker CPU per call, gather", "us", task, rounds["task"]),
            ("submit", f"submit_many of {count:,}, until durable", "/s", inserts, rounds["insert"]),
            ("many", "submit_many, then await all", "/s", through, rounds["through"]),
        )
    ]


def _latency(plan: Plan, kind: Kind, server: Server) -> list[Figure]:
    rounds = Rounds()
    with (
        _bare(kind, server) as bare,
        _served(plan, server, kind.url(server), "latency") as (served, asking),
        bare.relay() as relay,
    ):
        for n in range(plan.rounds):
            rounds.note(relay=relay.milliseconds(plan.amount(20, 8), 0.1))
            sample(asking, rounds, n, plan.amount(40, 12))
            rounds.note(
                few=statistics.median(asking.ask("batches", count=plan.amount(50, 12), size=10)["ms"])
            )
        idling = idle(plan, served, f"{kind.prefix}.", f"{kind.name}: ")
    limit = f"two commits in bare {kind.name} that ring each other"
    what = f"{kind.name}: one call at a time, submit to result"
    figures = [
        Figure(f"{kind.prefix}.latency", f"{what}, p50", rounds["p50"], "ms", limit, rounds["relay"]),
        Figure(f"{kind.prefix}.latency.p95", f"{what}, p95", rounds["p95"], "ms", limit, rounds["relay"]),
    ]
    if kind.plain:
        by_tls = Rounds()
        with _served(plan, server, server.database(), "tls") as (_, asking):
            for n in range(plan.rounds):
                sample(asking, by_tls, n, plan.amount(40, 12))
        name = f"{kind.prefix}.latency.tls"
        figures.append(Figure(name, f"{what}, p50, by TLS", by_tls["p50"], "ms", limit, rounds["relay"]))
    few = f"{kind.name}: 10 calls at once, submit to results, p50"
    return [*figures, Figure(f"{kind.prefix}.few", few, rounds["few"], "ms"), *idling]


def _cancelling(plan: Plan, kind: Kind, server: Server) -> Figure:
    """A tree of calls over three workers."""
    url, limit = kind.url(server), f"two commits in bare {kind.name} that ring each other"
    try:
        with _bare(kind, server) as bare, bare.relay() as relay:
            place, prefix, where = plan.folder / "tree", f"{kind.prefix}.", f"{kind.name}: "
            return cancelling.cancelled(plan, place, url, relay, limit, prefix, where)
    finally:
        server.drop(url)


def _beside_open(plan: Plan, kind: Kind, server: Server) -> Figure:
    """Calls beside a transaction that stays open: many have run in its time."""
    url, place, count = kind.url(server), plan.folder / "open", plan.amount(20_000, 2_000)
    rounds = Rounds()
    with ExitStack() as stack:
        stack.callback(server.drop, url)
        stack.enter_context(worker(place, concurrency=CONCURRENCY, url=url))
        asking = stack.enter_context(client(place, url=url))
        bare = stack.enter_context(closing(kind.bare(url)))
        asking.ask("gather", count=2_000)
        for _ in range(plan.rounds):
            free = asking.ask("batches", count=50, size=AT_ONCE)["ms"]
            with bare.stays_open():
                asking.ask("batches", count=count // 100, size=100)
                held = asking.ask("batches", count=50, size=AT_ONCE)["ms"]
            rounds.note(free=statistics.median(free), held=statistics.median(held))
            time.sleep(CLEANED)
    what = f"{kind.name}: {AT_ONCE} calls beside a transaction that is open since {count:,} calls"
    limit = "the same without it"
    return Figure(f"{kind.prefix}.open", what, rounds["held"], "ms", limit, rounds["free"])


def _full(plan: Plan, kind: Kind, server: Server) -> list[Figure]:
    """Claims beside a million finished calls."""
    count = plan.amount(1_000_000, FILLED)
    full, empty = kind.url(server), kind.url(server)
    for url in (full, empty):
        asyncio.run(claim_rate(url))  # makes the schema and the lane
    for table, rows in _FINISHED.items():
        for first in range(1, count, FILLED):
            numbers = kind.numbers.format(first=first, last=first + FILLED - 1)
            server.execute(f"INSERT INTO {table} {rows} FROM {numbers}", database=full)
        server.execute(kind.settle.format(table=table), database=full)
    plan.say(f"{count:,} finished calls stored")
    rounds = Rounds()
    for _ in range(plan.rounds):
        rounds.note(full=asyncio.run(claim_rate(full)), empty=asyncio.run(claim_rate(empty)))
    what = f"{kind.name}: claims beside {count:,} finished calls"
    return [
        Figure(f"{kind.prefix}.finished", what, rounds["full"], "/s", "empty table", rounds["empty"]),
    ]
