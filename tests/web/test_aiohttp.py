"""`everloop.aiohttp`: opening and closing with the site, and what handlers are given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

import everloop.aiohttp
from everloop import App, Database, OptionError, UsageError, Use
from everloop._core.errors import ClosedError, FunctionError
from everloop.aiohttp import EVERLOOP, inject
from tests.helpers.databases import INSERT, TABLE, names
from tests.web.sites import on_aiohttp

Handler = Callable[..., Awaitable[web.StreamResponse]]


def make_app(folder: Path, **settings: Any) -> App:
    app = App("shop", f"sqlite:///{folder}/shop.db", **settings)

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    return app


def add(app: App, x: int, y: int) -> Any:
    return app.functions["add"](x, y)


def one_page(handler: Handler) -> web.Application:
    site = web.Application()
    site.router.add_get("/", handler)
    return site


# -- setup ---------------------------------------------------------------------------------------------------


async def test_a_worker_in_the_server_runs_what_handlers_await(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=str(await add(request.app[EVERLOOP], 1, 2)))

    site = one_page(answer)
    everloop.aiohttp.setup(site, app, worker=True, concurrency=2, queues=["default"], grace=0.1)
    async with on_aiohttp(site) as at:
        assert await at.ask() == (200, "3")


async def test_a_client_runs_nothing_itself(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    async def answer(request: web.Request) -> web.Response:
        task = await request.app[EVERLOOP].submit(add(app, 1, 2))
        return web.Response(text=task.id)

    site = one_page(answer)
    everloop.aiohttp.setup(site, app)
    async with on_aiohttp(site) as at:
        _, task_id = await at.ask()
    async with app.worker():
        assert await (await app.get_task(task_id)) == 3


async def test_a_handler_of_a_sub_application_finds_the_app(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=request.config_dict[EVERLOOP].name)

    site = web.Application()
    everloop.aiohttp.setup(site, app)
    site.add_subapp("/sub", one_page(answer))
    async with on_aiohttp(site) as at:
        assert await at.ask("GET /sub/") == (200, "shop")


async def test_two_apps_have_two_keys(tmp_path: Path) -> None:
    shop, mail = make_app(tmp_path), App("mail", "memory://")
    site = web.Application()
    everloop.aiohttp.setup(site, shop)
    with pytest.raises(UsageError) as told:
        everloop.aiohttp.setup(site, mail)
    assert str(told.value) == (
        "this aiohttp application has the app 'shop' already; give setup() of 'mail' another key: "
        'web.AppKey("name", App)'
    )

    other = web.AppKey("mail", App)
    everloop.aiohttp.setup(site, mail, key=other)
    assert (site[EVERLOOP], site[other]) == (shop, mail)


async def test_what_the_site_opens_later_is_closed_before_the_app(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    lines: list[str] = []

    @app.resource
    async def prices() -> AsyncIterator[dict[str, int]]:
        yield {"tea": 3}
        lines.append("resource closed")

    async def answer(_: web.Request) -> web.Response:
        async with prices() as table:
            return web.Response(text=str(table["tea"]))

    async def mine(_: web.Application) -> AsyncIterator[None]:
        yield
        lines.append(f"mine closed, and 1 + 2 is {await add(app, 1, 2)}")

    site = one_page(answer)
    everloop.aiohttp.setup(site, app, worker=True)
    site.cleanup_ctx.append(mine)
    async with on_aiohttp(site) as at:
        assert await at.ask() == (200, "3")

    assert lines == ["mine closed, and 1 + 2 is 3", "resource closed"]
    with pytest.raises(ClosedError):
        await app.submit(add(app, 1, 2))


async def test_a_request_that_is_under_way_when_the_server_stops_is_answered(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    began, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        began.set()
        await go_on.wait()
        return web.Response(text=str(await add(app, 1, 2)))

    site = one_page(answer)
    everloop.aiohttp.setup(site, app, worker=True)

    async def stopping(_: web.Application) -> None:
        go_on.set()

    site.on_shutdown.append(stopping)
    async with on_aiohttp(site) as at:
        asked = asyncio.create_task(at.ask())
        await began.wait()

    assert await asked == (200, "3")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"concurrency": 5, "queues": ["a"]},
            "concurrency=5, queues=['a'] is for a worker in this process, and none was asked for: add",
        ),
        ({"worker": True, "concurrency": 0}, "`concurrency` "),
        ({"worker": True, "queues": "mail"}, "`queues` is a list of texts, not 'mail'; write ['mail']"),
    ],
)
def test_wrong_options_are_told_when_the_site_is_made(
    tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(OptionError) as error:
        everloop.aiohttp.setup(web.Application(), make_app(tmp_path), **options)

    assert told in str(error.value)


def test_only_an_app_can_be_set_up() -> None:
    with pytest.raises(UsageError) as error:
        everloop.aiohttp.setup(web.Application(), cast("App", web.Application))

    assert str(error.value) == (
        "everloop.aiohttp.setup() takes an everloop.App, not <class 'aiohttp.web_app.Application'>"
    )


# -- inject --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def shop(folder: Path, make: Callable[[App, Database], Handler]) -> AsyncIterator[Any]:
    """Serve one handler, on an app with an empty table of pages."""
    app = make_app(folder)
    db = app.database(f"sqlite:///{folder}/pages.db")
    site = one_page(make(app, db))
    everloop.aiohttp.setup(site, app)
    async with on_aiohttp(site) as at:
        async with db.transaction() as conn:
            await conn.execute(TABLE)
        yield at


def responds(status: int) -> Callable[[], web.Response]:
    return lambda: web.Response(status=status)


def raises(error: Callable[[], Exception]) -> Callable[[], web.Response]:
    def end() -> web.Response:
        raise error()

    return end


ENDS = [
    ("returns 200", responds(200), 200, ["tea"]),
    ("returns 404", responds(404), 404, ["tea"]),
    ("returns 500", responds(500), 500, []),
    ("returns 503", responds(503), 503, []),
    ("redirects", raises(lambda: web.HTTPFound("/tea")), 302, ["tea"]),
    ("raises 204", raises(web.HTTPNoContent), 204, ["tea"]),
    ("raises 404", raises(web.HTTPNotFound), 404, []),
    ("raises 503", raises(web.HTTPServiceUnavailable), 503, []),
    ("fails", raises(lambda: LookupError("no such tea")), 500, []),
]


@pytest.mark.parametrize(("end", "status", "rows"), [pytest.param(*rest, id=name) for name, *rest in ENDS])
@pytest.mark.parametrize("scope", ["transaction", "session"])
async def test_the_answer_decides_what_is_kept(
    tmp_path: Path, scope: str, end: Callable[[], web.Response], status: int, rows: list[str]
) -> None:
    def make(_: App, db: Database) -> Handler:
        take: Callable[[], AbstractAsyncContextManager[AsyncConnection]] = getattr(db, scope)

        @inject
        async def answer(_: web.Request, conn: AsyncConnection = Use(take)) -> web.Response:
            await conn.execute(INSERT, {"name": "tea"})
            return end()

        return answer

    async with shop(tmp_path, make) as at:
        assert (await at.ask())[0] == status
        assert names(tmp_path / "pages.db") == rows


@pytest.mark.parametrize("fails", [False, True])
async def test_a_call_is_submitted_in_the_transaction_of_the_request(tmp_path: Path, fails: bool) -> None:
    app = make_app(tmp_path)
    db = app.database()

    @inject
    async def answer(_: web.Request, conn: AsyncConnection = Use(db.transaction)) -> web.Response:
        await conn.execute(INSERT, {"name": "tea"})
        await app.submit(add(app, 1, 2), connection=conn)
        if fails:
            raise web.HTTPConflict
        return web.Response()

    site = one_page(answer)
    everloop.aiohttp.setup(site, app, worker=True)
    async with on_aiohttp(site) as at:
        async with db.transaction() as conn:
            await conn.execute(TABLE)
        assert (await at.ask())[0] == (409 if fails else 200)
        assert [await task for task in await app.tasks()] == ([] if fails else [3])
        assert names(tmp_path / "shop.db") == ([] if fails else ["tea"])


async def test_a_connection_is_taken_at_the_first_statement_and_given_back(tmp_path: Path) -> None:
    seen: list[int] = []
    databases: list[Database] = []

    def make(_: App, db: Database) -> Handler:
        databases.append(db)

        @inject
        async def answer(_: web.Request, session: AsyncSession = Use(db.session)) -> web.Response:
            seen.append(db.statistics().in_use)
            await session.execute(INSERT, {"name": "tea"})
            seen.append(db.statistics().in_use)
            return web.Response()

        return answer

    async with shop(tmp_path, make) as at:
        await at.ask()
        assert [*seen, databases[0].statistics().in_use] == [0, 1, 0]


async def test_a_commit_that_fails_answers_500(tmp_path: Path) -> None:
    @asynccontextmanager
    async def failing() -> AsyncIterator[str]:
        yield "it"
        raise ConnectionRefusedError("the database is gone")

    def make(_: App, __: Database) -> Handler:
        @inject
        async def answer(_: web.Request, it: str = Use(failing)) -> web.Response:
            return web.Response(text=it)

        return answer

    async with shop(tmp_path, make) as at:
        assert (await at.ask())[0] == 500


async def test_a_cancelled_handler_keeps_nothing(tmp_path: Path) -> None:
    inserted, ended = asyncio.Event(), asyncio.Event()
    app = make_app(tmp_path)
    db = app.database(f"sqlite:///{tmp_path}/pages.db")

    @inject
    async def answer(_: web.Request, conn: AsyncConnection = Use(db.transaction)) -> web.Response:
        await conn.execute(INSERT, {"name": "tea"})
        inserted.set()
        await asyncio.Event().wait()
        return web.Response()

    async def noted(request: web.Request) -> web.StreamResponse:
        try:
            return await answer(request)
        finally:
            ended.set()

    site = one_page(noted)
    everloop.aiohttp.setup(site, app)
    async with on_aiohttp(site, handler_cancellation=True) as at:
        async with db.transaction() as conn:
            await conn.execute(TABLE)
        async with at.visitor():
            await inserted.wait()
        await ended.wait()
        assert db.statistics().in_use == 0
        assert names(tmp_path / "pages.db") == []


async def test_a_method_of_a_view_is_given_the_same(tmp_path: Path) -> None:
    def make(app: App, _: Database) -> Handler:
        @app.resource
        async def prices() -> AsyncIterator[dict[str, int]]:
            yield {"tea": 3}

        class Page(web.View):
            @inject
            async def get(self, table: dict[str, int] = Use(prices)) -> web.Response:
                return web.Response(text=f"{self.request.path} {table['tea']}")

        return cast("Handler", Page)

    async with shop(tmp_path, make) as at:
        assert await at.ask() == (200, "/ 3")


def test_a_handler_without_a_scope_needs_no_inject() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    with pytest.raises(FunctionError) as error:
        inject(answer)

    assert str(error.value).startswith(
        "inject has nothing to fill in: no parameter of test_a_handler_without_a_scope_needs_no_inject."
        "<locals>.answer() stands for Use(...); write for instance "
    )


async def test_a_handler_that_returns_no_response_keeps_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make(_: App, db: Database) -> Handler:
        @inject
        async def answer(_: web.Request, conn: AsyncConnection = Use(db.transaction)) -> web.Response:
            await conn.execute(INSERT, {"name": "tea"})
            return cast("web.Response", "tea")

        return answer

    async with shop(tmp_path, make) as at:
        assert (await at.ask())[0] == 500
        assert names(tmp_path / "pages.db") == []
    assert "answer() returned 'tea', and no response of aiohttp" in caplog.text
