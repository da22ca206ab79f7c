"""What a shard's primary is given: the schema ``pgfleet``, owned and used by the DSN's user, and nothing else.

Also its end: the schema dropped again, where nobody but pgfleet's own triggers depends on it.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

import asyncpg

from pgfleet.errors import PrivilegeMissing, SchemaInUse, TakenAlready
from pgfleet.providers.schema.statements import Roles, scripts, texts
from pgfleet.runtime.sql import Connection

#: Two operators on two hosts take turns: "pgprepar" in ASCII, as a bigint.
LOCK = int.from_bytes(b"pgprepar", "big")
#: Our scripts take locks on our own tables only, and hold the application's up for no longer than this.
SETTINGS = {
    "application_name": "pgfleet apply", "default_transaction_read_only": "off", "lock_timeout": "5s", "statement_timeout": "60s",
}  # fmt: skip


#: The scripts take from the application and the monitor what only the owner may do; here that is one and the same user.
_ONE_USER = "grant all on all tables in schema pgfleet to current_user"


def prepared_digest(user: str) -> str:
    """Changes when what is prepared changes, or for whom; it is kept on each shard, and compared by the plan."""
    return hashlib.sha256(repr(("existing", texts(), _ONE_USER, user)).encode()).hexdigest()[:16]


async def prepare_shard(connection: Connection, fleet: str, shard: str, digest: str) -> None:
    """Bring the primary at the other end to the state that ``digest`` names. Can be repeated, and killed anywhere.

    :raises PrivilegeMissing: the user may not.
    :raises asyncpg.PostgresError: the server said no to something else, or is a primary no longer.
    """
    try:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
            # `if not exists` would ask for the right to create one although it is there.
            if not await connection.fetchval("select true from pg_namespace where nspname = 'pgfleet'"):
                await connection.execute("create schema pgfleet")
            user = await connection.fetchval("select current_user")
            for script in scripts(Roles(owner=user, app=user, monitor=user)):
                await connection.execute(script)
            await connection.execute(_ONE_USER)
            await connection.execute(
                """insert into pgfleet.shard (fleet, shard, prepared) values ($1, $2, $3)
                   on conflict (only_row) do update set prepared = $3, at = now()
                   where shard.fleet = $1 and shard.shard = $2""",
                fleet, shard, digest,
            )  # fmt: skip
            await _ours(connection, fleet, shard)
    except asyncpg.InsufficientPrivilegeError as error:
        message = f"the schema pgfleet of {shard} cannot be made as it shall be"
        raise PrivilegeMissing(
            message, seen=[str(error)], hint="alter schema pgfleet owner to …; with everything in it"
        ) from error


async def refuse_others_use(connection: Connection, fleet: str, shard: str) -> None:
    """Before the schema is dropped.

    :raises TakenAlready: it is another shard's.
    :raises SchemaInUse: something that is not pgfleet's depends on it.
    """
    if not await connection.fetchval("select true from pg_namespace where nspname = 'pgfleet'"):
        return
    await _ours(connection, fleet, shard)
    query = files("pgfleet.providers.existing").joinpath("dependents.sql").read_text(encoding="utf-8")
    if dependents := [row[0] for row in await connection.fetch(query)]:
        raise SchemaInUse(f"the schema pgfleet of {shard} is in use", seen=dependents[:20])


async def drop_schema(connection: Connection, fleet: str, shard: str) -> None:
    """Drop the schema with pgfleet's own tables, records and triggers, where it is there.

    :raises TakenAlready, SchemaInUse: as :func:`refuse_others_use`, or the server did not let us.
    """
    try:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
            await refuse_others_use(connection, fleet, shard)
            await connection.execute("drop schema if exists pgfleet cascade")
    except asyncpg.PostgresError as error:
        raise SchemaInUse(f"the schema pgfleet of {shard} cannot be dropped", seen=[str(error)]) from error


async def _ours(connection: Connection, fleet: str, shard: str) -> None:
    there = None
    if await connection.fetchval("select to_regclass('pgfleet.shard') is not null"):
        there = await connection.fetchrow("select fleet, shard from pgfleet.shard")
    if there is not None and (there[0], there[1]) != (fleet, shard):
        raise TakenAlready(f"this database is shard {there[1]} of fleet {there[0]}", seen=[f"not shard {shard} of {fleet}"])
