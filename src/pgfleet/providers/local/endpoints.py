"""Whether a fleet is reachable the way its clients come: through every region's PgBouncer, to every shard, both ways."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import asyncpg

from pgfleet.errors import NotSettled
from pgfleet.facts.addresses import AddressBook, PoolerAddress, read_only_database, read_write_database
from pgfleet.runtime.state import read_secret

#: Seconds in which all must answer once the shards are whole: HAProxy sees a server within one interval of its checks.
WITHIN = 30.0


async def await_endpoints(folder: Path, book: AddressBook, within: float = WITHIN) -> int:
    """Wait until every endpoint answers; how many there are.

    :raises NotSettled: some do not; says which, and what they said last.
    """
    verify = ssl.create_default_context(cafile=str(folder / "certificates" / "ca.crt"))
    password = read_secret(folder, "pgfleet_app")
    shards = {node.name.shard for node in book.nodes}
    asked = [
        (pooler, name, writable)
        for pooler in book.poolers
        for shard in sorted(shards)
        for name, writable in ((read_write_database(shard), True), (read_only_database(shard), False))
    ]
    said: dict[str, str] = {}

    async def one(pooler: PoolerAddress, database: str, writable: bool) -> None:
        where = f"{pooler.region}: {database} on {pooler.host}:{pooler.port}"
        said[where] = "not asked yet"
        while True:
            try:
                connection = await asyncpg.connect(
                    host=pooler.host, port=pooler.port, user="pgfleet_app", password=password, database=database,
                    ssl=verify, timeout=5.0, command_timeout=5.0, statement_cache_size=0,
                )  # fmt: skip
                try:
                    recovering = await connection.fetchval("select pg_is_in_recovery()")
                finally:
                    await connection.close(timeout=1.0)
                if not (writable and recovering):
                    del said[where]
                    return
                said[where] = "a replica answered"
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                said[where] = str(error) or type(error).__name__
            await asyncio.sleep(0.2)

    try:
        async with asyncio.timeout(within), asyncio.TaskGroup() as group:
            for pooler, database, writable in asked:
                group.create_task(one(pooler, database, writable))
    except TimeoutError:
        lines = [f"{where}: {answer}" for where, answer in list(said.items())[:8]]
        raise NotSettled(
            f"{len(said)} of {len(asked)} endpoints do not answer after {within:g} s", seen=lines, hint="pgfleet status"
        ) from None
    return len(asked)
