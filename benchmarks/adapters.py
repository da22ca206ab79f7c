"""What the adapters add to their drivers: microseconds for a block with one statement, and of this process's CPU, in turns.

    python benchmarks/adapters.py [--json]

Bare means the same statements by the driver alone on a connection (or SQLAlchemy engine) that is held, without TLS: what it could
not be quicker than. A block of ours has a deadline, a route, a clean session and, after a write, the caller's position.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.adapters.stage import Bank, bank

import pgfleet
from pgfleet.adapters.psycopg import AsyncFleet, Fleet
from pgfleet.adapters.sqlalchemy import FleetSessions

ROUNDS, EACH = 15, 60
READ = "select stem from questions where subject = 'PMP' limit 1"
WRITE = "insert into questions (subject, stem) values ('PMP', %s)"


class Base(DeclarativeBase):
    pass


class Question(Base):
    __tablename__ = "questions"
    subject: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    stem: Mapped[str]


def dsn(servers: Bank) -> str:
    port = servers.nodes[servers.primary].port
    return f"host=127.0.0.1 port={port} dbname=app user=pgfleet_app password=pgfleet_app sslmode=disable"


async def measure(servers: Bank) -> dict[str, tuple[float, float]]:
    """The medians of the rounds: microseconds a block, and of CPU."""
    url = f"postgresql+asyncpg://pgfleet_app:pgfleet_app@127.0.0.1:{servers.nodes[servers.primary].port}/app?ssl=disable"
    engine = create_async_engine(url)
    found = select(Question).where(Question.subject == "PMP").limit(1)
    async with (
        await psycopg.AsyncConnection.connect(dsn(servers), autocommit=True) as held,
        pgfleet.connect(servers.folder) as fleet, AsyncFleet(fleet) as people, FleetSessions(fleet) as sessions,
    ):  # fmt: skip
        with Fleet(servers.folder) as threads, psycopg.connect(dsn(servers), autocommit=True) as held_here:

            async def psycopg_read() -> None:
                async with held.transaction():
                    await held.execute(READ)

            async def fleet_read() -> None:
                async with people.read("questions", key="PMP") as conn:
                    await conn.execute(READ)

            async def psycopg_write() -> None:
                async with held.transaction():
                    await held.execute(WRITE, ["x"])

            async def fleet_write() -> None:
                async with people.write("questions", key="PMP") as conn:
                    await conn.execute(WRITE, ["x"])

            async def thread_read() -> None:
                with threads.read("questions", key="PMP") as conn:
                    conn.execute(READ)

            async def here_read() -> None:
                with held_here.transaction():
                    held_here.execute(READ)

            async def orm_read() -> None:
                async with AsyncSession(engine) as session:
                    (await session.scalars(found)).all()

            async def fleet_orm_read() -> None:
                async with sessions.using("questions", key="PMP") as session:
                    (await session.scalars(found)).all()

            async def orm_write() -> None:
                async with AsyncSession(engine) as session:
                    session.add(Question(subject="PMP", stem="x"))
                    await session.commit()

            async def fleet_orm_write() -> None:
                async with sessions.using("questions", key="PMP", write=True) as session:
                    session.add(Question(subject="PMP", stem="x"))
                    await session.commit()

            ways: dict[str, Callable[[], Awaitable[None]]] = {
                "psycopg async read, bare": psycopg_read, "psycopg async read, fleet": fleet_read,
                "psycopg async write, bare": psycopg_write, "psycopg async write, fleet": fleet_write,
                "psycopg read, bare": here_read, "psycopg read, fleet": thread_read,
                "sqlalchemy read, bare": orm_read, "sqlalchemy read, fleet": fleet_orm_read,
                "sqlalchemy write, bare": orm_write, "sqlalchemy write, fleet": fleet_orm_write,
            }  # fmt: skip
            took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, way in ways.items():
                    fleet.after(None)  # whoever reads has written nothing
                    began, cpu = time.perf_counter(), time.process_time()
                    for _ in range(EACH):
                        await way()
                    wall = time.perf_counter() - began
                    took[name].append((wall / EACH * 1e6, (time.process_time() - cpu) / EACH * 1e6))
    await engine.dispose()
    return {
        name: (statistics.median(wall for wall, _ in times[1:]), statistics.median(cpu for _, cpu in times[1:]))
        for name, times in took.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    with bank(0) as servers:
        servers.psql("insert into questions (subject, stem) values ('PMP', 'x')")
        found = asyncio.run(measure(servers))
    if as_json:
        print(json.dumps({"rounds": ROUNDS, "blocks_a_round": EACH, "microseconds": found}))
        return
    print(f"{'':<28} {'a block':>11} {'CPU':>11}")
    for name, (wall, cpu) in found.items():
        print(f"{name:<28} {wall:8.0f} µs {cpu:8.0f} µs")


if __name__ == "__main__":
    main()
