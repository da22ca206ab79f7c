"""A user's program. It is never run: two type checkers read it, as an editor would, and find every type and no mistake."""

from __future__ import annotations

import asyncio
from typing import assert_type

import asyncpg
import psycopg
from sqlalchemy import Text, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import pgfleet
import pgfleet.adapters.psycopg
import pgfleet.adapters.sqlalchemy
from pgfleet.adapters.asgi import TokenMiddleware
from pgfleet.client.counters import Counters


class Base(DeclarativeBase):
    pass


class Question(Base):
    __tablename__ = "questions"
    subject: Mapped[str] = mapped_column(Text, primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True)
    stem: Mapped[str]


async def add(conn: asyncpg.Connection[asyncpg.Record], stem: str) -> int:
    return int(await conn.fetchval("insert into questions (subject, stem) values ('PMP', $1) returning id", stem))


async def main() -> None:
    async with pgfleet.connect("fleet.yaml", region="eu-west", observers=[Counters()]) as fleet:
        assert_type(fleet, pgfleet.Fleet)
        rows = await fleet.fetch("questions", "select * from questions", key="PMP", max_staleness="2 s")
        print(rows[0]["stem"])
        row = await fleet.fetchrow("questions", "select 1", key="PMP")
        if row is not None:
            print(row[0])
        print(await fleet.execute("questions", "delete from questions where subject = $1", "PMP", key="PMP"))
        async with fleet.read("questions", key="PMP") as conn:
            for record in await conn.fetch("select 1"):
                print(record)
        async with fleet.write("questions", key="PMP", deadline=2) as conn:
            await conn.execute("select 1")
        assert_type(await fleet.transact("questions", add, "why?", key="PMP"), int)
        with fleet.after(str(fleet.token())):
            print(fleet.explain("questions", key="PMP").read_because)
        route = fleet.route("questions", key="PMP", write=True)
        assert_type(route.because, str)
        print(route.dsn(user="app"), route.connect_kwargs(user="app", password="x"))
        with psycopg.connect(**route.connect_kwargs(user="app", password="x"), autocommit=True) as plain:
            print(plain.execute("select 1").fetchone())
        async with await psycopg.AsyncConnection.connect(**route.connect_kwargs(user="app")) as other:
            print(await (await other.execute("select 1")).fetchone())
        native = await asyncpg.connect(route.dsn(user="app"), password="x", timeout=2)
        await native.close()

        async with pgfleet.adapters.psycopg.AsyncFleet(fleet) as people, people.read("questions", key="PMP") as lent:
            cursor = await lent.execute("select %s", ["x"])
            print(await cursor.fetchall())

        async with pgfleet.adapters.sqlalchemy.FleetSessions(fleet, size=5) as sessions:
            async with sessions.using("questions", key="PMP", write=True) as session:
                session.add(Question(subject="PMP", id=1, stem="why?"))
                await session.commit()
            async with sessions() as session:
                found = (await session.using("questions", key="PMP").scalars(select(Question))).first()
                assert_type(found, Question | None)

        async def app(scope: object, receive: object, send: object) -> None: ...

        TokenMiddleware(app, fleet=fleet)


def threads() -> None:
    with pgfleet.adapters.psycopg.Fleet("fleet.yaml", region="eu-west") as fleet, fleet.write("questions", key="PMP") as conn:
        conn.execute("select 1")


asyncio.run(main())
