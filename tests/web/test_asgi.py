"""`everloop.asgi` and `everloop.fastapi`: lifespans that compose, and dependencies of a request."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib import reload
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.responses import JSONResponse
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import everloop.asgi
import everloop.fastapi
from everloop import App, Database, MissingDependency, OptionError, UsageError
from everloop._core.errors import ClosedError
from everloop.asgi import Visits, lifespan
from everloop.fastapi import Use
from tests.helpers.databases import INSERT, TABLE, names
from tests.helpers.processes import run_program
from tests.web.sites import Site, on_uvicorn


def make_app(folder: Path) -> App:
    app = App("shop", f"sqlite:///{folder}/shop.db")

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    return app


def add(app: App, x: int, y: int) -> Any:
    return app.functions["add"](x, y)


# -- lifespan ------------------------------------------------------------------------------------------------


async def test_a_worker_in_the_server_runs_what_handlers_await(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    site = FastAPI(lifespan=lifespan(app, worker=True, concurrency=2, queues=["default"], grace=0.1))

    @site.get("/")
    async def answer() -> int:
        return int(await add(app, 1, 2))

    async with on_uvicorn(site) as at:
        assert await at.ask() == (200, "3")


async def test_a_client_runs_nothing_itself(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    async def answer(_: Request) -> PlainTextResponse:
        return PlainTextResponse((await app.submit(add(app, 1, 2))).id)

    async with on_uvicorn(Starlette(routes=[Route("/", answer)], lifespan=lifespan(app))) as at:
        _, task_id = await at.ask()
    async with app.worker():
        assert await (await app.get_task(task_id)) == 3


async def test_ones_own_lifespan_runs_inside_and_gives_the_state(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    lines: list[str] = []

    @app.resource
    async def prices() -> AsyncIterator[dict[str, int]]:
        yield {"tea": 3}
        lines.append("resource closed")

    @asynccontextmanager
    async def mine(site: Starlette) -> AsyncIterator[dict[str, str]]:
        lines.append(f"mine opened, and 1 + 2 is {await add(app, 1, 2)}")
        site.state.ready = True
        yield {"greeting": "hello"}
        lines.append(f"mine closed, and 2 + 2 is {await add(app, 2, 2)}")

    async def answer(request: Request) -> PlainTextResponse:
        async with prices() as table:
            return PlainTextResponse(f"{request.state.greeting} {request.app.state.ready} {table['tea']}")

    site = Starlette(routes=[Route("/", answer)], lifespan=lifespan(app, mine, worker=True))
    async with on_uvicorn(site) as at:
        assert await at.ask() == (200, "hello True 3")

    assert lines == [
        "mine opened, and 1 + 2 is 3",
        "mine closed, and 2 + 2 is 4",
        "resource closed",
    ]
    with pytest.raises(ClosedError):
        await app.submit(add(app, 1, 2))


async def test_a_lifespan_that_fails_closes_the_app(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    @asynccontextmanager
    async def mine(_: Starlette) -> AsyncIterator[None]:
        raise LookupError("no configuration")
        yield

    site = Starlette(lifespan=lifespan(app, mine))
    with pytest.raises(LookupError, match="no configuration"):
        async with site.router.lifespan_context(site):
            pass
    with pytest.raises(ClosedError):
        await app.submit(add(app, 1, 2))


async def test_a_site_is_as_it_was_when_it_has_stopped(tmp_path: Path) -> None:
    async def answer(_: Request) -> PlainTextResponse:
        return PlainTextResponse("tea")

    site = Starlette(routes=[Route("/", answer)], lifespan=lifespan(make_app(tmp_path)))
    stacks: list[object] = []
    for _ in range(2):
        async with on_uvicorn(site) as at:
            assert await at.ask() == (200, "tea")
            assert isinstance(site.middleware_stack, Visits)
        stacks.append(site.middleware_stack)

    assert stacks[0] is stacks[1]
    assert not isinstance(stacks[0], Visits)


async def test_any_asgi_application_can_be_wrapped() -> None:
    async def site(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for what in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{what}"
                await send({"type": f"lifespan.{what}.complete"})
            return
        headers = [(b"content-length", b"3")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"tea"})

    async with on_uvicorn(Visits(site)) as at:
        assert await at.ask() == (200, "tea")


def test_wrong_options_are_told_when_the_site_is_made(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    with pytest.raises(OptionError) as error:
        lifespan(app, grace=5)
    assert str(error.value) == (
        "everloop.asgi.lifespan(): grace=5 is for a worker in this process, and none was asked for: add "
        "worker=True, or leave it out"
    )
    with pytest.raises(UsageError, match=r"lifespan\(\) takes an everloop.App, not <fastapi.applications"):
        lifespan(FastAPI())  # type: ignore[arg-type]


# -- dependencies --------------------------------------------------------------------------------------------


@dataclass
class Shop:
    """A site whose database has an empty table of pages."""

    folder: Path
    site: FastAPI
    db: Database

    @property
    def rows(self) -> list[str]:
        return names(self.folder / "pages.db")

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Site]:
        async with on_uvicorn(self.site) as at:
            async with self.db.transaction() as conn:
                await conn.execute(TABLE)
            yield at


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    app = make_app(tmp_path)
    return Shop(tmp_path, FastAPI(lifespan=lifespan(app)), app.database(f"sqlite:///{tmp_path}/pages.db"))


def returns(answer: object, *, sets: int | None = None) -> Callable[[Response], object]:
    def end(response: Response) -> object:
        if sets is not None:
            response.status_code = sets
        return answer

    return end


def raises(error: Callable[[], Exception]) -> Callable[[Response], object]:
    def end(_: Response) -> object:
        raise error()

    return end


ENDS = [
    ("returns", returns("tea"), 200, ["tea"]),
    ("sets 404", returns("tea", sets=404), 404, ["tea"]),
    ("sets 503", returns("tea", sets=503), 503, []),
    ("redirects", raises(lambda: HTTPException(303, headers={"Location": "/tea"})), 303, ["tea"]),
    ("raises 404", raises(lambda: HTTPException(404)), 404, []),
    ("raises 503", raises(lambda: HTTPException(503)), 503, []),
    ("fails", raises(lambda: LookupError("no such tea")), 500, []),
    ("returns what the model refuses", returns(object()), 500, []),
    # FastAPI does not show a response that is returned: the docstring of `Use` says so.
    ("returns a response of 503", returns(JSONResponse("tea", 503)), 503, ["tea"]),
]


@pytest.mark.parametrize(("end", "status", "rows"), [pytest.param(*rest, id=name) for name, *rest in ENDS])
@pytest.mark.parametrize("scope", ["transaction", "session"])
async def test_the_answer_decides_what_is_kept(
    shop: Shop, scope: str, end: Callable[[Response], object], status: int, rows: list[str]
) -> None:
    take: Callable[[], AbstractAsyncContextManager[AsyncConnection]] = getattr(shop.db, scope)

    @shop.site.get("/", response_model=str)
    async def answer(response: Response, conn: AsyncConnection = Use(take)) -> object:
        await conn.execute(INSERT, {"name": "tea"})
        return end(response)

    async with shop.served() as at:
        assert (await at.ask())[0] == status
        assert shop.rows == rows


@pytest.mark.parametrize("scope", ["transaction", "session"])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_call_is_submitted_in_the_transaction_of_the_request(
    tmp_path: Path, scope: str, fails: bool
) -> None:
    app = make_app(tmp_path)
    own = Shop(tmp_path, FastAPI(lifespan=lifespan(app, worker=True)), app.database())
    take: Callable[[], AbstractAsyncContextManager[Any]] = getattr(own.db, scope)

    @own.site.get("/")
    async def answer(conn: Any = Use(take)) -> None:
        await conn.execute(INSERT, {"name": "tea"})
        await app.submit(add(app, 1, 2), connection=conn)
        if fails:
            raise HTTPException(409)

    async with own.served() as at:
        assert (await at.ask())[0] == (409 if fails else 200)
        assert [await task for task in await app.tasks()] == ([] if fails else [3])
        assert names(tmp_path / "shop.db") == ([] if fails else ["tea"])


async def test_a_request_has_one_transaction_whoever_depends_on_it(shop: Shop) -> None:
    async def visited(session: AsyncSession = Use(shop.db.session)) -> AsyncSession:
        await session.execute(INSERT, {"name": "visit"})
        return session

    @shop.site.get("/")
    async def answer(
        session: AsyncSession = Use(shop.db.session),
        visit: AsyncSession = Depends(visited),  # noqa: B008 - as FastAPI has it
        other: AsyncConnection = Use(shop.db.connection),
    ) -> None:
        assert session is visit
        assert session is not other
        raise HTTPException(409)

    async with shop.served() as at:
        assert (await at.ask())[0] == 409
        assert shop.rows == []


async def test_a_connection_is_taken_at_the_first_statement_and_given_back(shop: Shop) -> None:
    @shop.site.get("/")
    async def answer(conn: AsyncConnection = Use(shop.db.transaction)) -> list[int]:
        before = shop.db.statistics().in_use
        await conn.execute(INSERT, {"name": "tea"})
        return [before, shop.db.statistics().in_use]

    async with shop.served() as at:
        assert await at.ask() == (200, "[0,1]")
        assert shop.db.statistics().in_use == 0


async def test_a_commit_that_fails_answers_500(shop: Shop) -> None:
    """So it is over before the response is sent."""

    @asynccontextmanager
    async def failing() -> AsyncIterator[str]:
        yield "it"
        raise ConnectionRefusedError("the database is gone")

    @shop.site.get("/")
    async def answer(it: str = Use(failing)) -> str:
        return it

    async with shop.served() as at:
        assert (await at.ask())[0] == 500


async def test_scopes_that_cannot_be_compared_are_entered_each(shop: Shop) -> None:
    class Counted:
        __hash__ = None  # type: ignore[assignment]
        entered = 0

        @asynccontextmanager
        async def __call__(self) -> AsyncIterator[int]:
            self.entered += 1
            yield self.entered

    counted = Counted()

    @shop.site.get("/")
    async def answer(one: int = Use(counted), two: int = Use(counted)) -> list[int]:
        return [one, two]

    async with shop.served() as at:
        assert await at.ask() == (200, "[1,1]")


async def test_use_takes_scopes_only(shop: Shop) -> None:
    with pytest.raises(OptionError, match=r"choose a scope of it: Use\(db.connection\)"):
        Use(shop.db)  # type: ignore[arg-type]


def test_an_older_fastapi_is_told(monkeypatch: pytest.MonkeyPatch, shop: Shop) -> None:
    def old(dependency: Callable[..., Any] | None = None, *, use_cache: bool = True) -> Any:
        return Depends(dependency, use_cache=use_cache)

    monkeypatch.setattr(everloop.fastapi, "Depends", old)
    with pytest.raises(MissingDependency, match=r'is sent: pip install "fastapi>=0\.121"'):
        Use(shop.db.transaction)


def test_no_fastapi_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(MissingDependency) as told:
        reload(everloop.fastapi)
    monkeypatch.undo()
    reload(everloop.fastapi)

    assert str(told.value) == 'everloop.fastapi needs FastAPI 0.121 or newer: pip install "fastapi>=0.121"'


def test_asgi_imports_no_framework(tmp_path: Path) -> None:
    program = "import sys, everloop.asgi; print([m for m in ('starlette', 'fastapi') if m in sys.modules])"
    assert run_program("-c", program, folder=tmp_path).checked().out == "[]\n"
