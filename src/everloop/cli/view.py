"""One call as JSON: the schema that docs/cli.md describes."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from everloop._core.clock import moment
from everloop._core.codec import Payloads
from everloop._core.errors import NotStorable
from everloop._core.records import Snapshot
from everloop._core.runs import RunRecord, left_out
from everloop._core.text import first_line

# Inside JSON texts only: some terminals obey C1 controls, and lone surrogates cannot be encoded.
_RISKY = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def summary(call: Snapshot) -> dict[str, Any]:
    """Return what a listing tells of a call."""
    return {
        "id": call.id,
        "app": call.lane.app,
        "queue": call.lane.queue,
        "function": call.lane.fn,
        "state": call.state.value,
        "attempts": call.attempt,
        "crashes": call.crashes,
        "priority": call.priority,
        "created": iso(call.created),
        "due": iso(call.due),
        "started": iso(call.started),
        "ended": iso(call.ended),
        "key": call.key,
        "tags": list(call.tags),
        "progress": _progress(call),
        "reason": reason(call.error),
    }


def details(call: Snapshot, payloads: Payloads) -> dict[str, Any]:
    """Return everything about a call."""
    arguments, problem = _read(call.args, payloads)
    result, result_problem = _read(call.value, payloads)
    positional, named = arguments[:2] if isinstance(arguments, list) else (None, None)
    return {
        **summary(call),
        "args": positional,
        "kwargs": named,
        "result": result,
        "error": _json(call.error),
        "unreadable": problem or result_problem,
        "policy": _json(call.policy),
        "expires": iso(call.expires),
        "cancel_asked": call.cancel_asked,
        "parent": call.parent,
        "owned": call.owned,
        "depth": call.depth,
        "after": call.after,
        "retry_of": call.retry_of,
        "session": call.session,
        "fence": call.fence,
    }


def history(call: Snapshot, runs: list[RunRecord]) -> dict[str, Any]:
    """Return how the runs of a call ended."""
    return {
        "history": [
            {
                "attempt": run.number,
                "kind": run.kind,
                "started": iso(run.started),
                "ended": iso(run.ended),
                "host": run.host,
                "pid": run.pid,
                "session": run.session,
                "reason": reason(run.error),
                "error": _json(run.error),
            }
            for run in runs
        ],
        "history_left_out": max(0, left_out(runs, call.attempt, call.crashes)),
    }


def reason(stored: bytes | None) -> str | None:
    """Return in one line why a call, or a run of it, failed."""
    error = _json(stored)
    if not isinstance(error, dict):
        return None
    return first_line(f"{error.get('type', 'Error')}: {error.get('text', '')}".rstrip(": "))


def iso(at: int | None) -> str | None:
    """Return an instant in ISO 8601, in UTC; None for none."""
    return None if not at else moment(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dumps(value: object, *, indent: int | None = None) -> str:
    """Return JSON that is safe to print on a terminal."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _RISKY.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _progress(call: Snapshot) -> dict[str, Any] | None:
    if call.progress is None:
        return None
    done, total, note = call.progress
    return {"done": done, "total": total, "note": note}


def _read(payload: bytes | None, payloads: Payloads) -> tuple[Any, str | None]:
    if not payload:
        return None, None
    try:
        return msgspec.json.decode(payloads.unwrap(payload)), None
    except (NotStorable, ValueError) as error:
        return None, str(error)


def _json(data: bytes | None) -> Any:
    """Decode what Everloop itself wrote."""
    return msgspec.json.decode(data) if data else None
