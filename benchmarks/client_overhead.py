"""What the client costs: benchmarks/client_overhead.py [--json] [--rounds N] [--seconds S] [--state FOLDER].

Each operation is done by 32 tasks at once, on uvloop, in three ways that take turns within one run, on the same node:

  fleet   pgfleet's client: routing, deadline, isolation of session state and (for writes) the token are on
  pool    asyncpg.create_pool, as its users have it: it resets the session after every loan
  bare    asyncpg connections that their tasks hold: the limit

A ratio is that of calls per second, the median over the rounds; CPU is this process's own, per call. Without ``--state`` a
fleet of the example question-bank-demo is brought up and taken down; with it, the fleet whose state folder that is is used.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import uvloop
from rich.console import Console
from rich.table import Table

import pgfleet
from pgfleet.client.fleet import Fleet
from pgfleet.client.open import open_fleet
from pgfleet.facts.addresses import NodeAddress
from pgfleet.names import NodeName
from pgfleet.prove.fleets import SCHEMA, changed
from pgfleet.prove.loading import load_questions
from pgfleet.prove.machine import machine, versions
from pgfleet.prove.questions import generate, subjects
from pgfleet.prove.stage import staged
from pgfleet.runtime.sql import Login

TASKS = 32
WAYS = ("fleet", "pool", "bare")
KEY = "PMP"
REGION = "us-west"
QUESTIONS = 2000

POINT = "select id, stem, choices, answer from questions where subject = $1 and id = $2"
LIST = "select id, stem, choices, answer from questions where subject = $1 and id >= $2 order by id limit 20"
INSERT = "insert into questions (subject, stem, choices, answer) values ($1, $2, array['a', 'b'], 0)"
COUNT = "select count(*) as n from questions where difficulty = $1"

Call = Callable[[Any, int], Awaitable[object]]


class Arms:
    """One operation's three ways. Each takes what its task holds (a connection, or nothing) and a running number."""

    def __init__(self, name: str, fleet: Call, pool: Call, bare: Call, *, primary: bool = False) -> None:
        self.name, self.ways, self.primary = name, {"fleet": fleet, "pool": pool, "bare": bare}, primary


async def window(call: Call, held: list[Any], seconds: float) -> tuple[float, float]:
    """Calls per second, and microseconds of this process's CPU a call."""
    end = time.perf_counter() + seconds
    done = 0

    async def task(mine: Any, first: int) -> None:
        nonlocal done
        number = first
        while time.perf_counter() < end:
            await call(mine, number)
            number += TASKS
            done += 1

    cpu, began = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for first, mine in enumerate(held):
            group.create_task(task(mine, first))
    return done / (time.perf_counter() - began), (time.process_time() - cpu) / done * 1e6


async def compare(arms: Arms, held: dict[str, list[Any]], rounds: int, seconds: float) -> dict[str, Any]:
    names = list(arms.ways)
    for name in names:
        await window(arms.ways[name], held[name], 0.3)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % 3 :] + names[: number % 3]:
            found[name].append(await window(arms.ways[name], held[name], seconds))

    def ratio(other: str) -> float:
        return statistics.median(mine[0] / theirs[0] for mine, theirs in zip(found["fleet"], found[other], strict=True))

    return {
        "operation": arms.name,
        "ratio_to_pool": round(ratio("pool"), 3),
        "ratio_to_bare": round(ratio("bare"), 3),
        "per_second": {name: round(statistics.median(rate for rate, _ in rates)) for name, rates in found.items()},
        "cpu_us": {name: round(statistics.median(cpu for _, cpu in rates), 1) for name, rates in found.items()},
    }


async def gathered(fleet: Fleet, pools: list[asyncpg.Pool], rounds: int, seconds: float) -> dict[str, Any]:
    """All four shards at once, against the slowest shard alone (its own statement, sent on its own)."""

    async def everywhere(_: Any, number: int) -> object:
        return await fleet.everywhere("questions", COUNT, number % 5 + 1)

    def alone(pool: asyncpg.Pool) -> Call:
        async def one(_: Any, number: int) -> object:
            return await pool.fetch(COUNT, number % 5 + 1)

        return one

    async def took(call: Call) -> float:
        times = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            await call(None, len(times))
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1000

    all_, slowest = [], []
    for _ in range(rounds):
        all_.append(await took(everywhere))
        slowest.append(max([await took(alone(pool)) for pool in pools]))
    ratio = statistics.median(a / s for a, s in zip(all_, slowest, strict=True))
    return {
        "operation": "everywhere, 4 shards", "ratio_to_slowest_shard": round(ratio, 2),
        "milliseconds": {"everywhere": round(statistics.median(all_), 2), "slowest shard": round(statistics.median(slowest), 2)},
    }  # fmt: skip


def routing(fleet: Fleet, calls: int = 100_000) -> float:
    """Microseconds of one decision, as `fetch` takes it: which shard, whether anything is asked of freshness, which node."""
    parts = fleet._open
    began = time.perf_counter()
    for _ in range(calls):
        read = fleet._read(parts, "questions", KEY, None, None)
        parts.reader.pool(read)
    return (time.perf_counter() - began) / calls * 1e6


async def measured(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    opened = open_fleet(folder, state=None, role="pgfleet_app")
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(pgfleet.connect(folder, region=REGION, pool_size=TASKS + 8))
        explained = fleet.explain("questions", key=KEY)
        read, write = (NodeName.parse(f"{explained.shard}/{member}") for member in (explained.read, explained.write))
        nodes = {False: opened.book.node(read), True: opened.book.node(write)}
        ids = [
            row["id"]
            for row in await fleet.fetch("questions", "select id from questions where subject = $1 limit 1000", KEY, key=KEY)
        ]
        pools: dict[bool, asyncpg.Pool] = {}
        bare: dict[bool, list[asyncpg.Connection[Any]]] = {}
        for which, node in nodes.items():
            assert node is not None
            pools[which] = await stack.enter_async_context(pool_of(node, opened.login_of(node)))
            bare[which] = [await connection_of(node, opened.login_of(node)) for _ in range(TASKS)]
            for connection in bare[which]:
                stack.push_async_callback(connection.close)

        async def pool_transact(pool: asyncpg.Pool, number: int) -> None:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute(INSERT, KEY, f"{time.monotonic_ns()} {number}")

        async def bare_transact(connection: asyncpg.Connection[Any], number: int) -> None:
            async with connection.transaction():
                await connection.execute(INSERT, KEY, f"{time.monotonic_ns()} {number}")

        async def insert(connection: Any, number: int) -> object:
            return await connection.execute(INSERT, KEY, f"{time.monotonic_ns()} {number}")

        async def fleet_insert(connection: Any, number: int) -> None:
            await connection.execute(INSERT, KEY, f"{time.monotonic_ns()} {number}")

        operations = [
            Arms(
                "point read",
                lambda _, n: fleet.fetch("questions", POINT, KEY, ids[n % len(ids)], key=KEY),
                lambda pool, n: pool.fetch(POINT, KEY, ids[n % len(ids)]),
                lambda connection, n: connection.fetch(POINT, KEY, ids[n % len(ids)]),
            ),
            Arms(
                "list of 20",
                lambda _, n: fleet.fetch("questions", LIST, KEY, ids[n % len(ids)], key=KEY),
                lambda pool, n: pool.fetch(LIST, KEY, ids[n % len(ids)]),
                lambda connection, n: connection.fetch(LIST, KEY, ids[n % len(ids)]),
            ),
            Arms(
                "insert + token",
                lambda _, n: fleet.execute("questions", INSERT, KEY, f"{time.monotonic_ns()} {n}", key=KEY),
                insert, insert, primary=True,
            ),
            Arms(
                "transact",
                lambda _, n: fleet.transact("questions", fleet_insert, n, key=KEY, resolvable=False),
                pool_transact, bare_transact, primary=True,
            ),
        ]  # fmt: skip
        results = []
        for arms in operations:
            held: dict[str, list[Any]] = {
                "fleet": [None] * TASKS,
                "pool": [pools[arms.primary]] * TASKS,
                "bare": [*bare[arms.primary]],
            }
            if arms.primary:
                tasks = held | {}
            else:
                tasks = held
            results.append(await compare(arms, tasks, rounds, seconds))
        shards = []
        for shard in fleet.shards:
            node = next(n for n in opened.book.nodes if n.name.shard == shard and n.name.region == REGION)
            shards.append(await stack.enter_async_context(pool_of(node, opened.login_of(node))))
        scatter = await gathered(fleet, shards, rounds, seconds)
        return {
            "tasks": TASKS, "rounds": rounds, "seconds": seconds, "operations": [*results, scatter],
            "routing_us": round(routing(fleet), 2), "on": machine() | versions(),
        }  # fmt: skip


@asynccontextmanager
async def pool_of(node: NodeAddress, login: Login) -> Any:
    options = {"host": node.host, "port": node.port, "user": login.role, "password": login.password, "database": login.database}
    async with asyncpg.create_pool(**options, ssl=login.tls or False, min_size=TASKS, max_size=TASKS) as pool:
        yield pool


async def connection_of(node: NodeAddress, login: Login) -> asyncpg.Connection[Any]:
    return await asyncpg.connect(
        host=node.host, port=node.port, user=login.role, password=login.password, database=login.database, ssl=login.tls or False
    )


async def main(asked: argparse.Namespace) -> dict[str, Any]:
    if asked.state is not None:
        return await measured(asked.state, asked.rounds, asked.seconds)
    # All three ways have their connections open at the same time.
    text = changed("question-bank-demo", lambda fleet: fleet.update(pools={"max_connections": 200}), "room for all connections")
    async with staged(text) as stage:
        await stage.apply()
        await stage.whole(list(stage.fleet.shards))
        await stage.migrate(SCHEMA)
        async with stage.client() as client:
            questions = {subject: list(generate(subject, QUESTIONS)) for subject in subjects()}
            await load_questions(client, stage.placement, questions, lambda rows: None)
        await stage.whole(list(stage.fleet.shards))
        return await measured(stage.folder, asked.rounds, asked.seconds)


def shown(found: dict[str, Any]) -> None:
    table = Table("operation", "to pool", "to bare", "fleet/s", "pool/s", "bare/s", "CPU µs fleet", "pool", "bare", box=None)
    for one in found["operations"]:
        if "ratio_to_pool" in one:
            rate, cpu = one["per_second"], one["cpu_us"]
            table.add_row(
                one["operation"], f"{one['ratio_to_pool']:.2f}", f"{one['ratio_to_bare']:.2f}",
                *(f"{rate[way]:,}" for way in WAYS), *(f"{cpu[way]:.0f}" for way in WAYS),
            )  # fmt: skip
    console = Console()
    console.print(table)
    scatter = found["operations"][-1]
    took = scatter["milliseconds"]
    console.print(
        f"{scatter['operation']}: {took['everywhere']} ms, {scatter['ratio_to_slowest_shard']} times the slowest shard alone"
        f" ({took['slowest shard']} ms)"
    )
    console.print(f"routing decision: {found['routing_us']} µs")
    console.print(
        f"{found['tasks']} tasks, {found['rounds']} rounds of {found['seconds']:g} s; "
        + ", ".join(map(str, found["on"].values()))
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--state", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    result = uvloop.run(main(given))
    if given.json:
        print(json.dumps(result, indent=1))
    else:
        shown(result)
