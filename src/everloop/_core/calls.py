"""The life of a call: its states, the events that move it, and nothing else.

`TRANSITIONS` is the one source of states. The stores' statements and the conformance suite are
checked against it: an event that the table does not allow changes nothing and is answered as such.

Adding a state? Also change: the CHECK in `store/sql/migrations`, the ready index, and the
diagram in ARCHITECTURE.md.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a call is in its life."""

    WAITING = "waiting"  # for the end of another call (a durable callback)
    SCHEDULED = "scheduled"  # until its due time
    READY = "ready"  # for a worker
    LEASED = "leased"  # by one worker session: it runs, or it awaits its children
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        """Whether nothing can change any more."""
        return self in FINAL


class Event(StrEnum):
    """What can happen to a call."""

    WAKE = "wake"  # the call it waits for has ended
    DUE = "due"  # its time has come
    LEASE = "lease"  # a worker session takes it
    RELEASE = "release"  # its worker gives it back, unharmed (drain, RetryAfter)
    REAP = "reap"  # its worker is dead, or the process of the worker that ran it
    SUCCEED = "succeed"
    RETRY = "retry"  # it raised, and may try again
    FAIL = "fail"  # it raised for the last time, or its workers died too often
    CANCEL = "cancel"
    EXPIRE = "expire"  # it was not started in time


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.WAITING: {
        Event.WAKE: State.READY,
        Event.CANCEL: State.CANCELLED,
        Event.EXPIRE: State.EXPIRED,
    },
    State.SCHEDULED: {
        Event.DUE: State.READY,
        Event.CANCEL: State.CANCELLED,
        Event.EXPIRE: State.EXPIRED,
    },
    State.READY: {
        Event.LEASE: State.LEASED,
        Event.CANCEL: State.CANCELLED,
        Event.EXPIRE: State.EXPIRED,
    },
    State.LEASED: {
        Event.SUCCEED: State.SUCCEEDED,
        Event.RETRY: State.SCHEDULED,
        Event.FAIL: State.FAILED,
        Event.CANCEL: State.CANCELLED,
        Event.RELEASE: State.SCHEDULED,
        Event.REAP: State.READY,
    },
    State.SUCCEEDED: {},
    State.FAILED: {},
    State.CANCELLED: {},
    State.EXPIRED: {},
}

FINAL = frozenset(state for state, events in TRANSITIONS.items() if not events)
LIVE = frozenset(State) - FINAL


def step(state: State, event: Event) -> State:
    """Return the state that `event` leads to.

    Raises:
        ValueError: The event cannot happen in this state.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        allowed = ", ".join(TRANSITIONS[state]) or "nothing: it is final"
        raise ValueError(f"a {state} call cannot {event} (it accepts {allowed})") from None
