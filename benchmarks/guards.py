"""What the guards cost, as ratios to a table without them: benchmarks/guards.py [ROUNDS] [--json]

One server, one session, statements prepared, rounds of each kind in turn, medians; time is what the server's process was on a
CPU (Linux's schedstat), so that a busy machine changes little. fsync is off and nothing replicates, which makes the guards look
as dear as they can: a COMMIT that reaches a disk or a replica takes many times what they take.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.engines.owning import prepare, put, session
from tests.engines.scratch import Shards, running

from pgfleet.routing.hashing import bucket
from pgfleet.routing.placement import Hashed, Placement, TablePlacement

#: Statements of one round, and rows of a statement that brings many.
STATEMENTS, ROWS = 300, 5000

TABLES = "".join(
    f"create table {name} (subject text not null, id bigint not null, note text, primary key (subject, id));"
    for name in ("plain", "listed", "many", "hashed", "spread")
)

#: Two shards, in the order in which the first has the key.
OVER = ("one", "two") if bucket("PMP", 64) % 2 == 0 else ("two", "one")
#: Ids of the rows that the first has where the key is spread.
IDS = [number for number in range(200_000) if bucket(number, 64) % 2 == 0]


def mapped() -> Placement:
    """A key that is one of three, one of a thousand, one by its hash, and one that is spread by its id."""
    return Placement(
        {
            "listed": TablePlacement("subject", {"PMP": "one", "AWS": "one", "GRE": "two"}, {}, None),
            "many": TablePlacement("subject", {f"key {n}": "one" for n in range(1000)} | {"PMP": "one"}, {}, None),
            "hashed": TablePlacement("subject", {"other": "two"}, {}, Hashed(64, OVER)),
            "spread": TablePlacement("subject", {}, {"PMP": Hashed(64, ("one", "two"), "id")}, None),
        }
    )


class Bench:
    """One session, and what its server process was busy with, by kind of work and table."""

    def __init__(self, connection: Any, pid: int) -> None:
        self.connection = connection
        self.seconds: dict[str, dict[str, list[float]]] = {}
        self._schedule = Path(f"/proc/{pid}/schedstat")

    async def round(self, table: str) -> None:
        """Every kind of work on ``table``, which is empty before and after."""
        few, more = IDS[:STATEMENTS], IDS[STATEMENTS : STATEMENTS + ROWS]
        insert = await self.connection.prepare(f"insert into {table} values ('PMP', $1, '')")
        update = await self.connection.prepare(f"update {table} set note = 'x' where subject = 'PMP' and id = $1")
        miss = await self.connection.prepare(f"delete from {table} where subject = 'PMP' and id = -1 - $1::bigint")
        delete = await self.connection.prepare(f"delete from {table} where subject = 'PMP' and id = $1")
        for kind, statement in (("insert", insert), ("update", update), ("no row", miss), ("delete", delete)):
            with self._timed(kind, table, STATEMENTS):
                for number in few:
                    await statement.fetch(number)
        with self._timed("insert, ten a transaction", table, STATEMENTS):
            for start in range(0, STATEMENTS, 10):
                async with self.connection.transaction():
                    for number in few[start : start + 10]:
                        await insert.fetch(number)
        with self._timed("insert of many rows", table, ROWS):
            await self.connection.execute(f"insert into {table} select 'PMP', n, '' from unnest($1::bigint[]) n", more)
        with self._timed("update of many rows", table, ROWS):
            await self.connection.execute(f"update {table} set note = 'x' where id >= $1", more[0])
        await self.connection.execute(f"truncate {table}")

    @contextmanager
    def _timed(self, kind: str, table: str, count: int) -> Iterator[None]:
        began = self._busy()
        yield
        self.seconds.setdefault(kind, {}).setdefault(table, []).append((self._busy() - began) / count)

    def _busy(self) -> float:
        return int(self._schedule.read_text().split()[0]) / 1e9


async def measure(shards: Shards, rounds: int) -> dict[str, dict[str, list[float]]]:
    await prepare(shards, TABLES)
    await put(shards, mapped())
    async with session(shards, "one", "pgfleet_owner", {"pgfleet.epoch": "1"}) as connection:
        bench = Bench(connection, await connection.fetchval("select pg_backend_pid()"))
        tables = ["plain", "listed", "many", "hashed", "spread"]
        for table in tables:
            await bench.round(table)
        bench.seconds.clear()  # plans are kept and pages are there from now on
        for number in range(rounds):
            for table in tables if number % 2 else tables[::-1]:
                await bench.round(table)
        return bench.seconds


def main() -> None:
    words = [word for word in sys.argv[1:] if word != "--json"]
    with running("guards", "one") as shards:
        seconds = asyncio.run(measure(shards, int(words[0]) if words else 20))
    medians = {kind: {table: statistics.median(took) for table, took in tables.items()} for kind, tables in seconds.items()}
    if "--json" in sys.argv:
        print(json.dumps(medians, indent=1))
        return
    for kind, tables in medians.items():
        plain = tables.pop("plain")
        said = "  ".join(f"{table} {plain / took:.2f} (+{(took - plain) * 1e6:.1f} µs)" for table, took in tables.items())
        print(f"{kind:26} without {plain * 1e6:6.1f} µs   of that rate with: {said}")


if __name__ == "__main__":
    main()
