"""What must hold at the end of a schedule, when faults have stopped and time has passed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from everloop._core.calls import State
from everloop.store.memory_rows import Row
from tests.sim.bodies import app
from tests.sim.ledger import Seen

if TYPE_CHECKING:
    from tests.sim.schedule import World


def judge(world: World) -> None:
    """Look at everything.

    Raises:
        Violated: Something is not as it must be.
    """
    server = world.server
    server.watch.judge_ends()
    for row in server.tables.rows.values():
        _judge_row(world, row)
    for id_, client in server.watch.ledger.acknowledged.items():
        if id_ not in server.tables.rows:
            server.watch.fail(f"lost: {id_}, which was acknowledged to {client}")
    for seen in server.watch.ledger.seen:
        _judge_seen(world, seen)
    _judge_foreseen(world)
    _judge_callbacks(world)
    _judge_leaks(world)


def _value(row: Row) -> Any:
    return app.read_value(row.new.lane.fn, row.value or b"")


def _judge_row(world: World, row: Row) -> None:
    watch = world.server.watch
    if not row.state.final:
        watch.fail(f"stuck: {row.id} is {row.state}")
    if row.new.lane.fn != "work":
        return
    run = watch.ledger.run(row.id, row.fence)
    if row.state is State.SUCCEEDED:
        if run is None or run.how != "returned":
            watch.fail(f"{row.id} succeeded at {row.fence} without a run that returned: {run}")
        elif _value(row) != run.value:
            watch.fail(f"{row.id} succeeded with {_value(row)}, and its run returned {run.value}")
    if row.state is State.FAILED and row.crashes <= row.new.crash_limit:
        too_late = run is None and b"total_timeout" in row.new.policy  # before its body could begin
        if not too_late and (run is None or run.how not in ("raised", "stopped")):
            watch.fail(f"{row.id} failed at {row.fence} without a run that raised: {run}")
    if row.state is State.EXPIRED and row.expires is None:
        watch.fail(f"{row.id} expired, and was never to")


def _name(world: World, row: Row) -> str:
    """Return the name of the plan of a call."""
    runs = world.server.watch.ledger.runs.get(row.id)
    if runs:
        return runs[0].name
    (text,), _ = app.functions["work"].arguments.load(app.payloads.unwrap(row.new.args))
    return str(msgspec.json.decode(text)[0])


def _judge_foreseen(world: World) -> None:
    """See to it that nothing that went wrong below has changed what comes of a call."""
    rows = [row for row in world.server.tables.rows.values() if row.new.lane.fn == "work"]
    if any(row.crashes > row.new.crash_limit for row in rows):
        return  # it failed for its crashes, and so, perhaps, did who awaited it
    for row in rows:
        foreseen = world.foreseen.get(_name(world, row))
        if foreseen is not None and row.state.value != foreseen:
            run = world.server.watch.ledger.run(row.id, row.fence)
            world.server.watch.fail(
                f"{_name(world, row)} {row.id} is {row.state}, and was to be {foreseen}: {run} {row.error!r}"
            )


def _judge_seen(world: World, seen: Seen) -> None:
    watch, row = world.server.watch, world.server.tables.rows.get(seen.id)
    if row is None and seen.how == "cancelled" and seen.id in watch.ledger.cancelled:
        return  # its user has waited for long enough for the store to say whether it took it
    if row is None:
        watch.fail(f"{seen.client} saw the end of {seen.id}, which is not in the store")
        return
    if seen.how == "value" and (row.state is not State.SUCCEEDED or seen.value != _value(row)):
        watch.fail(f"{seen.client} was given {seen.value} for {row.id}, which is {row.state}")
    if seen.how == "error" and row.state not in (State.FAILED, State.EXPIRED):
        watch.fail(f"{seen.client} was given {seen.value} for {row.id}, which is {row.state}")
    if seen.how == "cancelled" and row.state is not State.CANCELLED and row.id not in watch.ledger.cancelled:
        watch.fail(f"{seen.client} was cancelled waiting for {row.id}, which is {row.state}")


def _judge_callbacks(world: World) -> None:
    watch, rows = world.server.watch, world.server.tables.rows
    for row in rows.values():
        if row.new.after is None:
            continue
        about = rows[row.new.after]
        ran = [state for _, id_, state in watch.ledger.callbacks if id_ == about.id]
        if row.state is not State.SUCCEEDED and row.crashes <= row.new.crash_limit:
            watch.fail(f"the callback {row.id} of {about.id} is {row.state}")
        if row.state is State.SUCCEEDED and about.state.value not in ran:
            watch.fail(f"the callback {row.id} was to be told that {about.id} is {about.state}; it saw {ran}")


def _judge_leaks(world: World) -> None:
    watch, server = world.server.watch, world.server
    for node in world.nodes:
        for loop in node.loops:
            if loop.complaints:
                bad = [each for each in loop.complaints if "never retrieved" not in each["message"]]
                if bad:
                    watch.fail(f"{node.name} complains: {bad}")
            left = [] if node.dead else loop.unfinished()
            if left:
                watch.fail(f"{node.name} has ended and leaves tasks behind: {left}")
    dead = {number for node in world.nodes if node.dead for number in node.sessions}
    if set(server.memory._bells._bells) - dead:
        watch.fail(f"bells are left: {set(server.memory._bells._bells) - dead}")
