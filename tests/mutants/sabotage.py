"""Small sabotages of Everloop, and the quick tests that must notice each.

A mutant is a text of a file, which stands there once, and what it becomes. Whoever changes such a line
changes it here, too: that it still applies is a test, and so is, for a few of them in each run, that it is
noticed; `make mutants` tries them all.
"""

from __future__ import annotations

from dataclasses import dataclass

VERBS = "src/everloop/store/sql/verbs"
ENGINE = "src/everloop/engine"
SQLITE = "src/everloop/store/sql/statements/sqlite.sql"


@dataclass(frozen=True)
class Mutant:
    """One sabotage.

    Attributes:
        name: What is wrong with it.
        tests: What has to notice: arguments of pytest.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def cases(*groups: str) -> tuple[str, ...]:
    """Return the conformance cases of these modules, on SQLite."""
    wanted = " or ".join(groups)
    return ("tests/stores/test_conformance.py", "-k", f"test_case and sqlite and ({wanted})")


def only(file: str, *names: str) -> tuple[str, ...]:
    """Return some tests of a file."""
    return tuple(f"{file}::{name}" for name in names)


FAILURES = "tests/engine/test_store_failures.py"
RETRIES = "tests/engine/test_retries.py"
SLOTS = "tests/engine/test_slots.py"
ALONE = "tests/engine/test_worker_alone.py"

MUTANTS = (
    # -- fences and attempts --------------------------------------------------------------------------
    Mutant(
        "an outcome counts whatever its fence",
        SQLITE,
        "WHERE c.state = 'leased' AND c.fence = b.value->>2",
        "WHERE c.state = 'leased'",
        cases("settling", "dying"),
    ),
    Mutant(
        "progress counts whatever its fence",
        SQLITE,
        "WHERE c.state = 'leased' AND c.fence = b.value->>1",
        "WHERE c.state = 'leased'",
        cases("settling", "telling", "leasing", "reading"),
    ),
    Mutant(
        "a lease does not grow the fence",
        SQLITE,
        "SET state = 'leased', session = :session, fence = fence + 1, started = :now",
        "SET state = 'leased', session = :session, started = :now",
        cases("leasing"),
    ),
    Mutant(
        "what is given back keeps its fence",
        f"{VERBS}/sessions.py",
        "Move(row, State.READY, row.due, row.attempt, row.crashes, growth=1)",
        "Move(row, State.READY, row.due, row.attempt, row.crashes, growth=0)",
        cases("sessions", "leasing"),
    ),
    Mutant(
        "what a dead worker held keeps its fence",
        f"{VERBS}/ending.py",
        "crashes, growth=1, error=last_words",
        "crashes, growth=0, error=last_words",
        cases("dying"),
    ),
    Mutant(
        "a parent cancels whatever its fence",
        f"{VERBS}/asking.py",
        "asks = [(id_, parent not in last)",
        "asks = [(id_, False)",
        cases("cancelling"),
    ),
    Mutant(
        "a body cancels in nobody's name",
        "src/everloop/_task.py",
        "self._parent = attempt.parent",
        "self._parent = None",
        only(
            "tests/engine/test_rare_moments.py",
            "test_a_worker_that_has_lost_a_parent_cancels_nothing_that_its_next_run_awaits",
        ),
    ),
    Mutant(
        "an end from outside keeps the fence",
        f"{VERBS}/ending.py",
        "row.attempt, row.crashes, growth=1, error=error)",
        "row.attempt, row.crashes, growth=0, error=error)",
        cases("cancelling", "dying"),
    ),
    Mutant(
        "one crash less is allowed",
        f"{VERBS}/ending.py",
        "elif crashes > crash_limit:",
        "elif crashes >= crash_limit:",
        cases("dying"),
    ),
    Mutant(
        "being released costs an attempt",
        f"{VERBS}/settling.py",
        "attempt = row.attempt + (event is not Event.RELEASE)",
        "attempt = row.attempt + 1",
        cases("settling"),
    ),
    Mutant(
        "what is tried again runs once more than allowed",
        f"{ENGINE}/executor.py",
        "if attempt > self.times or",
        "if attempt > self.times + 1 or",
        only(RETRIES, "test_the_rule_names_exceptions_that_end_the_call_or_do_not"),
    ),
    # -- ends -----------------------------------------------------------------------------------------
    Mutant(
        "a retry overrules the cancellation that was asked",
        f"{VERBS}/settling.py",
        "if event is Event.RETRY and row.cancel_asked is not None:",
        "if event is Event.RETRY and row.cancel_asked == event:",
        cases("cancelling", "settling"),
    ),
    Mutant(
        "an end is not put into the inbox of who submitted",
        f"{VERBS}/ending.py",
        'yield Statement("end_tell", {"session": session, "seqs": seqs})',
        "_ = seqs",
        cases("telling"),
    ),
    Mutant(
        "who waits is not told",
        f"{VERBS}/ending.py",
        'yield Statement("end_tell_waits", {"seqs": waited})',
        "_ = rows",
        cases("telling"),
    ),
    Mutant(
        "callbacks are not started",
        f"{VERBS}/ending.py",
        'yield Statement("end_wake", {"seqs": watched, "now": scope.now})',
        "_ = watched",
        cases("callbacks"),
    ),
    Mutant(
        "children outlive their parent",
        f"{VERBS}/ending.py",
        'return (yield from _stop_all(scope, [Row.read(r) for r in rows], "its parent has ended"))',
        "return rows[:0]",
        cases("children"),
    ),
    Mutant(
        "the worker is not told of a cancellation",
        f"{VERBS}/ending.py",
        'yield Statement("cancel_tell", {"seqs": seqs})',
        "_ = seqs",
        cases("cancelling"),
    ),
    Mutant(
        "what expired on its way back is leased",
        f"{VERBS}/turning.py",
        "if look.expired or scope.returned:",
        "if look.expired:",
        cases("leasing"),
    ),
    # -- leases and sessions --------------------------------------------------------------------------
    Mutant(
        "a session that was reaped is given calls",
        f"{VERBS}/turning.py",
        "if not (request.lanes and request.room > 0 and look.alive):",
        "if not (request.lanes and request.room > 0):",
        cases("sessions", "dying", "leasing"),
    ),
    Mutant(
        "suspects are given to whoever does not take them",
        f"{VERBS}/turning.py",
        "takes and request.suspects and (look.suspects or scope.returned)",
        "takes and (look.suspects or scope.returned)",
        cases("dying", "leasing"),
    ),
    Mutant(
        "leases in a lost answer are never given back",
        f"{VERBS}/turning.py",
        "yield from release_others(scope, {*request.holding, *held})",
        "_ = held",
        cases("leasing", "sessions", "settling"),
    ),
    Mutant(
        "a session that closes keeps its calls",
        f"{VERBS}/sessions.py",
        "yield from apply_moves(scope, [_release(*_read(row)) for row in rows])",
        "_ = rows",
        cases("sessions"),
    ),
    Mutant(
        "outcomes go before the children that a body has added",
        f"{VERBS}/turning.py",
        "added = yield from add(scope, adds)\n    settled = yield from settle(scope, outcomes, matched)\n",
        "settled = yield from settle(scope, outcomes, matched)\n"
        "        added = yield from add(scope, adds)\n"
        "        return look, added, settled\n"
        "    settled = yield from settle(scope, outcomes, matched)\n",
        cases("children", "settling"),
    ),
    # -- adding ---------------------------------------------------------------------------------------
    Mutant(
        "a parent that lost its lease adds children",
        f"{VERBS}/adding.py",
        ' or parent[2] != "leased" or parent[3] != call.parent.fence):',
        ' or parent[2] != "leased"):',
        cases("children", "adding"),
    ),
    Mutant(
        "a child that failed is used again",
        f"{VERBS}/adding.py",
        "if child is not None and child.reusable:",
        "if child is not None:",
        cases("children"),
    ),
    Mutant(
        "a child that is about to be cancelled is awaited by the next run",
        f"{VERBS}/adding.py",
        "return self.state is State.SUCCEEDED or not (self.state.final or self.asked)",
        "return self.state is State.SUCCEEDED or not self.state.final",
        cases("children"),
    ),
    Mutant(
        "an end is taken for that of a call that is not added yet",
        "src/everloop/_task.py",
        "if not self._is_stored and self._transaction is None:",
        "if False:",
        only(
            "tests/engine/test_keys.py",
            "test_an_end_that_comes_before_the_answer_is_only_that_of_the_same_call[sqlite]",
        ),
    ),
    Mutant(
        "a key is judged among living calls only",
        f"{VERBS}/adding.py",
        'return among == "ever" or not state.final or (among == "done" and state is State.SUCCEEDED)',
        "return not state.final",
        cases("keys"),
    ),
    # -- transactions ---------------------------------------------------------------------------------
    Mutant(
        "what failed half-way is not rolled back",
        "src/everloop/store/sql/runners/sqlite.py",
        "_roll_back(connection)\n            raise",
        "raise",
        only("tests/stores/test_interleavings.py", "test_nothing_of_a_failed_verb_remains[sqlite]"),
    ),
    Mutant(
        "after a look into the inbox no commit waits for the disk",
        "src/everloop/store/sql/runners/sqlite.py",
        'connection.execute("PRAGMA synchronous = FULL")',
        "pass",
        only("tests/powerloss/test_power_loss.py", "test_every_image_opens_and_holds_what_was_acknowledged"),
    ),
    Mutant(
        "the write gate forgets to wake who is next",
        "src/everloop/_core/gate.py",
        "self._changed.notify_all()",
        "pass",
        only("tests/unit/test_gate.py", "test_a_thread_is_woken_by_whoever_leaves_before_it"),
    ),
    Mutant(
        "nobody is rung for calls that are ready",
        "src/everloop/store/sql/store.py",
        "self._bell.ring(scope.rung, workers=scope.ready)",
        "self._bell.ring(scope.rung, workers=False)",
        ("tests/stores/test_bells.py",),
    ),
    # -- the engine -----------------------------------------------------------------------------------
    Mutant(
        "what a failed turn carried is dropped",
        f"{ENGINE}/turns.py",
        "self._uncertain = True\n        self._put_back(batch)\n        self._pause",
        "self._uncertain = True\n        self._pause",
        only(FAILURES, "test_what_happens_while_the_store_is_away_is_stored_when_it_is_back"),
    ),
    Mutant(
        "a lost answer is not doubted",
        f"{ENGINE}/turns.py",
        "self._uncertain = True\n        self._put_back(batch)\n        self._pause",
        "self._put_back(batch)\n        self._pause",
        only(FAILURES, "test_lost_answers_lose_nothing_and_repeat_nothing"),
    ),
    Mutant(
        "ends in a lost answer are not asked for",
        f"{ENGINE}/turns.py",
        "self._doubting_until = math.inf\n            self.on_lost_answer()",
        "self._doubting_until = math.inf",
        only(FAILURES, "test_an_end_in_a_lost_answer_is_told_again"),
    ),
    Mutant(
        "what was leased while the process stood still is begun",
        f"{ENGINE}/turns.py",
        "if session == self._session() and (self.is_sure() or not answer.leased):",
        "if session == self._session():",
        only(
            "tests/engine/test_turns_alone.py",
            "test_what_was_leased_while_the_process_stood_still_is_given_back_and_not_begun",
        ),
    ),
    Mutant(
        "a session is taken to live from when its opening was answered",
        f"{ENGINE}/keeper.py",
        "self._kept_until = asked + lease",
        "self._kept_until = time.monotonic() + lease",
        only(
            "tests/engine/test_rare_moments.py",
            "test_a_session_whose_opening_was_answered_late_is_not_sure_to_live",
        ),
    ),
    Mutant(
        "a body that its worker has left behind does not keep its lease",
        f"{ENGINE}/session.py",
        "return tuple(id_ for worker in self._workers() for id_ in worker.holding)",
        "return () if self.worker is None else self.worker.holding",
        only(
            "tests/engine/test_rare_moments.py",
            "test_a_body_that_goes_on_without_its_worker_keeps_its_lease",
        ),
    ),
    Mutant(
        "whoever has just come judges others by their time",
        f"{ENGINE}/keeper.py",
        "return now - self._last <= self._patience <= (self._last - self._since) / 2",
        "return now - self._last <= self._patience",
        ("tests/unit/test_witness.py",),
    ),
    Mutant(
        "timeouts of an ended body go on",
        f"{ENGINE}/executor.py",
        "for timer in timers:\n            timer.cancel()",
        "timers.clear()",
        only(ALONE, "test_nothing_is_kept_of_a_body_that_ended_before_its_timeout"),
    ),
    Mutant(
        "a suspect that has ended still counts",
        f"{ENGINE}/worker.py",
        "self._suspects.discard(attempt)",
        "pass",
        only(ALONE, "test_one_suspect_runs_at_a_time_and_the_next_once_it_has_ended"),
    ),
    Mutant(
        "a body is stopped for a lease before its own",
        f"{ENGINE}/worker.py",
        "if attempt is not None and attempt.leased.fence == cancel.fence:",
        "if attempt is not None:",
        only(ALONE, "test_a_cancellation_of_another_lease_stops_no_body"),
    ),
    Mutant(
        "a body with a pending child has its slot back",
        f"{ENGINE}/attempt.py",
        "self._pending -= 1\n        if self._pending == 0:",
        "self._pending -= 1\n        if self._pending <= 1:",
        only(SLOTS, "test_a_body_keeps_its_slot_back_at_once_when_its_last_child_has_ended"),
    ),
    Mutant(
        "a worker that drains goes on leasing",
        f"{ENGINE}/worker.py",
        "return 0 if self.draining else self.slots.room",
        "return self.slots.room",
        only(ALONE, "test_what_arrives_while_it_drains_is_given_back_and_nothing_more_is_taken"),
    ),
)
