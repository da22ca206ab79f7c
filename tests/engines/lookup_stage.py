"""A stage for lookups: shards with the fleet's own schema and a table of users, and writers that can be stopped at any step.

Every statement and every step of a transaction passes a *gate*, before and after it. What stands at the gate decides how the
story goes on: nothing happens, the process dies, or the answer is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from tests.engines.scratch import Shards

from pgfleet.client.claiming import write_outcome
from pgfleet.client.lookups import Lookups
from pgfleet.control.connect import tls
from pgfleet.errors import OutcomeUnknown
from pgfleet.providers.schema.statements import Roles, scripts
from pgfleet.routing.placement import Placement
from pgfleet.runtime.clock import Deadline
from pgfleet.spec.load import load

TEXT = """\
fleet: lookups
regions: {us: {}}
shards: {a: {}, b: {}, c: {}}
tables:
  users:
    key: region
    place: {a: [us], b: [eu]}
    lookups: {email: {columns: [email], over: [a, b, c]}}
"""
PLACEMENT = Placement.of(load("f", TEXT))
REGIONS = {"us": "a", "eu": "b"}


class Died(BaseException):
    """The process is gone: nothing of it runs any more, not even what handles errors."""


class Overtaken(Exception):
    """The application's statement changed no row: another write was quicker."""


#: What a gate is told: whose step, its name, and whether it is about to happen or has happened.
Gate = Callable[[str, bool], Awaitable[None]]


async def open_gate(step: str, done: bool) -> None:
    pass


@dataclass
class Stage:
    """:param pools: (writer, shard) -> connections that bear the writer's name. :param free: those for its transactions."""

    shards: Shards
    pools: dict[tuple[str, str], asyncpg.Pool[Any]] = field(default_factory=dict)
    free: dict[tuple[str, str], list[asyncpg.Connection[Any]]] = field(default_factory=dict)

    async def set_up(self) -> None:
        self.shards.empty()
        for shard in self.shards.servers:
            admin = await self.shards.connect(shard, "postgres")
            await admin.execute("create schema pgfleet authorization pgfleet_owner")
            await admin.execute("grant usage on schema pgfleet to pgfleet_app, pgfleet_monitor")
            await admin.execute("set role pgfleet_owner")
            for script in scripts(Roles("pgfleet_owner", "pgfleet_app", "pgfleet_monitor")):
                await admin.execute(script)
            await admin.execute("create table users (region text, id uuid, email text, primary key (region, id))")
            await admin.close()

    async def close(self) -> None:
        for pool in self.pools.values():
            await pool.close()
        for connections in self.free.values():
            for connection in connections:
                await connection.close()

    def _login(self, writer: str, shard: str) -> dict[str, Any]:
        return {
            "host": "127.0.0.1", "port": self.shards.servers[shard].port, "user": "pgfleet_app", "password": "pgfleet_app",
            "database": "app", "ssl": tls(self.shards.folder), "server_settings": {"application_name": writer},
        }  # fmt: skip

    async def pool(self, writer: str, shard: str) -> asyncpg.Pool[Any]:
        if (writer, shard) not in self.pools:
            self.pools[writer, shard] = await asyncpg.create_pool(**self._login(writer, shard), min_size=1, max_size=3)
        return self.pools[writer, shard]

    @asynccontextmanager
    async def connection(self, writer: str, shard: str) -> AsyncIterator[asyncpg.Connection[Any]]:
        """For one transaction; one that was cut off is not used again."""
        free = self.free.setdefault((writer, shard), [])
        lent = free.pop() if free else await asyncpg.connect(**self._login(writer, shard))
        try:
            yield lent
        finally:
            if not lent.is_closed():
                free.append(lent)

    async def ask(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        """Rows of every shard."""
        found: list[tuple[Any, ...]] = []
        for shard in self.shards.servers:
            found += [tuple(row) for row in await (await self.pool("stage", shard)).fetch(sql, *args)]
        return sorted(found)

    async def clear(self) -> None:
        for shard in self.shards.servers:
            pool = await self.pool("stage", shard)
            await pool.execute("delete from pgfleet.lookup; delete from pgfleet.outcome; delete from users")

    async def rows(self) -> list[tuple[Any, ...]]:
        """(region, email) of every user there is."""
        return await self.ask("select region, email from users where email is not null")

    async def entries(self) -> list[tuple[Any, ...]]:
        """(key, value, whether it is decided) of every entry of the e-mail lookup."""
        return await self.ask("select key, value, confirmed and releasing is null from pgfleet.lookup where lookup = 'email'")

    async def entries_on(self, shard: str) -> list[tuple[Any, ...]]:
        rows = await (await self.pool("stage", shard)).fetch("select key, value, confirmed from pgfleet.lookup")
        return sorted(tuple(row) for row in rows)

    async def in_flight(self) -> int:
        """Transactions that have not ended on the servers."""
        return len(
            await self.ask(
                """select pid from pg_stat_activity
                   where usename = 'pgfleet_app' and xact_start is not null and pid <> pg_backend_pid()"""
            )
        )

    async def blocked(self, writer: str) -> bool:
        """Whether a statement of that writer waits for another one's transaction."""
        return bool(
            await self.ask("select pid from pg_stat_activity where application_name = $1 and wait_event_type = 'Lock'", writer)
        )


@dataclass
class Writer:
    """An application's process: its own connections, and a gate before and after each of its steps."""

    stage: Stage
    name: str
    gate: Gate = open_gate
    grace: float = 0.0

    @property
    def lookups(self) -> Lookups:
        return Lookups(lambda: PLACEMENT, self.on, grace=self.grace)

    async def on(self, shard: str, sql: str, *args: Any, deadline: Deadline) -> Sequence[Any]:
        step = f"{sql.split()[0]} on {shard}"
        await self.gate(step, False)
        pool = await self.stage.pool(self.name, shard)
        try:
            async with asyncio.timeout(max(0.0, deadline.left())):
                rows: Sequence[Any] = await pool.fetch(sql, *args)
        except TimeoutError as error:
            raise OutcomeUnknown(f"{shard} did not answer") from error
        await self.gate(step, True)
        return rows

    async def write(self, write: Write, seconds: float = 20.0) -> None:
        """Reserve, commit, confirm."""
        deadline = Deadline.after(seconds)
        claiming = self.lookups.claiming(
            "users", key=write.region, owner=REGIONS[write.region],
            claims={"email": write.new}, releases={"email": write.old},
        )  # fmt: skip
        async with claiming.held(deadline) as id_:
            await self._transaction(write, id_)

    async def _transaction(self, write: Write, id_: UUID) -> None:
        async with self.stage.connection(self.name, REGIONS[write.region]) as connection:
            try:
                await self._step("begin", connection.execute("begin"))
                await self._step("outcome", write_outcome(connection, id_))
                await self._step("row", self._row(connection, write))
            except OutcomeUnknown as error:
                connection.terminate()
                raise ConnectionResetError("the connection is gone, and COMMIT was never sent") from error
            except Exception:
                await connection.execute("rollback")
                raise
            except BaseException:
                connection.terminate()
                raise
            try:
                await self._step("commit", connection.execute("commit"))
            except BaseException:
                connection.terminate()
                raise

    async def _step(self, name: str, deed: Coroutine[Any, Any, Any]) -> None:
        try:
            await self.gate(name, False)
        except BaseException:
            deed.close()
            raise
        await deed
        await self.gate(name, True)

    async def _row(self, connection: Any, write: Write) -> None:
        if write.old is None:
            status = await connection.execute("insert into users values ($1, $2, $3)", write.region, uuid4(), write.new)
        elif write.new is None:
            status = await connection.execute("delete from users where region = $1 and email = $2", write.region, write.old)
        else:
            status = await connection.execute(
                "update users set email = $3 where region = $1 and email = $2", write.region, write.old, write.new
            )
        if not status.endswith(" 1"):
            raise Overtaken(f"{write}: {status}")


@dataclass(frozen=True)
class Write:
    """A user signs up (no old address), changes the address, or leaves (no new one)."""

    region: str
    old: str | None
    new: str | None


async def settled(stage: Stage) -> None:
    """After a repair by somebody who has no patience: what holds whatever happened before.

    One row a value; exactly one entry for each row, with its key, decided; located where it is; and what nobody has can
    be claimed.
    """
    while await stage.in_flight():
        await asyncio.sleep(0.005)
    rows = await stage.rows()
    values = [email for _, email in rows]
    assert len(set(values)) == len(values), f"two owners: {rows}"
    repairer = Writer(stage, "repairer")
    for region, email in rows:
        located = await repairer.lookups.locate("users", {"email": email}, Deadline.after(10))
        assert located is not None, f"{email} of {region} is not found"
        assert (located.key, located.shard) == (region, REGIONS[region])
    for shard in stage.shards.servers:
        swept = await repairer.lookups.sweep(shard, Deadline.after(10), older=0.0)
        assert (swept.in_flight, swept.undecided) == (0, [])
    assert await stage.entries() == [(region, email, True) for region, email in rows]
