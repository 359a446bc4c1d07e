"""The plain twin of p2_pool.py."""

import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

DATABASE = os.environ.get("DATABASE", "sqlite+aiosqlite:///pages.db")

db = create_async_engine(DATABASE)


async def select(sql: str) -> None:
    async with db.connect() as conn:
        print("row", (await conn.execute(text(sql))).fetchone())


async def insert(sql: str) -> None:
    async with db.begin() as conn:
        await conn.execute(text(sql))


async def main() -> None:
    async with db.begin() as conn:
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
    await db.dispose()


if __name__ == "__main__":
    asyncio.run(main())
