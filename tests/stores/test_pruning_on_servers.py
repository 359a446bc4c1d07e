"""Pruning beside transactions that stay open: it waits for none, and takes nothing from under one."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from everloop._core.calls import Event
from everloop._core.errors import StoreUnavailable
from everloop._core.keeping import Pruned, Pruning
from everloop._core.records import Added, Lane, NewCall, Outcome, SessionInfo, Turn
from everloop.store.sql.mysql_address import address_of
from everloop.store.sql.runners.mysql_connection import connect
from everloop.store.sql.server_store import ServerStore
from everloop.store.url import store_from_url
from tests.stores.test_servers import transaction

pytestmark = pytest.mark.server

LANE = Lane("a", "default", "work")
WORKER = SessionInfo(app="a", kind="worker", host="here", pid=1, lanes=(LANE,))
ALL = Pruning("a", calls=0)


def call(number: int, **rest: Any) -> NewCall:
    return NewCall(id=f"{number:08x}-0000-7000-8000-000000000000", lane=LANE, args=b"j", **rest)


@pytest.fixture(params=["postgresql", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


async def finished(store: ServerStore[Any], *numbers: int) -> None:
    """Add calls, and let them succeed."""
    session = await store.open_session(WORKER, 60_000_000)
    await store.add(None, [call(n) for n in numbers])
    leased = (await store.turn(session, Turn(room=100, lanes=(LANE,)))).leased
    await store.turn(session, Turn(outcomes=[Outcome(c.id, c.fence, Event.SUCCEED, b"j1") for c in leased]))


async def test_what_is_held_by_another_transaction_is_passed_over(url: str) -> None:
    store = store_from_url(url)
    assert isinstance(store, ServerStore)
    await store.open()
    await finished(store, 1, 2)
    with transaction(url, f"SELECT 1 FROM ever_calls WHERE id = '{call(1).id}' FOR UPDATE"):
        assert await store.prune(ALL) == Pruned(1)
    assert await store.prune(ALL) == Pruned(1)
    assert await store.get([call(1).id, call(2).id]) == [None, None]
    await store.close()


async def test_a_call_that_goes_while_another_one_is_to_hang_on_it(url: str) -> None:
    gone: list[str] = []

    def prune_meanwhile(statement: str, _number: int) -> None:
        if statement == "keep_hold" and not gone:
            gone.append(statement)
            delete = f"DELETE FROM ever_calls WHERE id = '{call(1).id}'"
            if url.startswith("postgresql"):
                with psycopg.connect(url) as theirs:
                    theirs.execute(delete.encode())
            else:
                mine = connect(address_of(url))
                mine.run(delete, "pruning")
                mine.close()

    known = store_from_url(url)
    assert isinstance(known, ServerStore)
    store = type(known)(url, fault=prune_meanwhile)
    await store.open()
    await finished(store, 1)
    joining = call(1, tags=("t",))  # not plain: it is looked for
    session = await store.open_session(WORKER, 60_000_000)
    with pytest.raises(
        StoreUnavailable, match=r"^a finished call was pruned while another one was to hang on"
    ):
        await store.add(session, [joining])
    assert await store.add(session, [call(2, after=call(1).id)]) == [Added(call(2).id, "refused", "after")]
    await store.close()
