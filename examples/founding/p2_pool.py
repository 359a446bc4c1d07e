"""A global pool: one SELECT and one INSERT through it at once, with commit."""

import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from everloop import App, Use

DATABASE = os.environ.get("DATABASE", "sqlite+aiosqlite:///pages.db")

app = App("founding")
db = app.database(DATABASE)


@app.task
async def select(sql: str, conn: AsyncConnection = Use(db.connection)) -> None:
    print("row", (await conn.execute(text(sql))).fetchone())


@app.task
async def insert(sql: str, conn: AsyncConnection = Use(db.transaction)) -> None:
    await conn.execute(text(sql))


async def main() -> None:
    async with db.transaction() as conn:
        await conn.execute(
            text("create table if not exists pages (id integer primary key, name text not null)")
        )
        await conn.execute(text("delete from pages"))
        await conn.execute(text("insert into pages (name) values ('first')"))
    await asyncio.gather(
        select("select name from pages order by id"),
        insert("insert into pages (name) values ('second')"),
    )
    await select("select count(*) from pages")


if __name__ == "__main__":
    asyncio.run(main())
