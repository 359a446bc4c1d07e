"""A global MySQL pool: one SELECT and one INSERT through it at once, with commit. The plain twin."""

import asyncio
import os
from urllib.parse import unquote, urlsplit

import aiomysql  # type: ignore[import-untyped]  # it has no types

SERVER = urlsplit(os.environ.get("MYSQL", "mysql://root@127.0.0.1:3306/test"))

pool: aiomysql.Pool


async def select(sql: str) -> None:
    async with pool.acquire() as conn, conn.cursor() as cur:
        await cur.execute(sql)
        print("row", await cur.fetchone())


async def insert(sql: str) -> None:
    async with pool.acquire() as conn, conn.cursor() as cur:
        await cur.execute(sql)
        await conn.commit()


async def main() -> None:
    global pool  # noqa: PLW0603 - a global pool is what this shows
    pool = await aiomysql.create_pool(
        host=SERVER.hostname,
        port=SERVER.port,
        user=SERVER.username,
        password=unquote(SERVER.password or ""),
        db=SERVER.path[1:],
        loop=asyncio.get_running_loop(),
    )
    await insert("create table if not exists pages (id int auto_increment primary key, name varchar(100))")
    await insert("delete from pages")
    await insert("insert into pages (name) values ('first')")
    await asyncio.gather(
        select("select name from pages order by id"),
        insert("insert into pages (name) values ('second')"),
    )
    await select("select count(*) from pages")
    pool.close()
    await pool.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
