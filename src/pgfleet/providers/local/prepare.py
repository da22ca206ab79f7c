"""What every shard's primary holds before an application comes: roles with the least that each needs, the database, and the
fleet's own schema. Every statement can be repeated."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path

import asyncpg

from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.facts.fleet import PlacementSeen
from pgfleet.names import quote_identifier
from pgfleet.providers.local.access import connect_as
from pgfleet.providers.local.credentials import Credentials
from pgfleet.providers.ownership import seen_placement
from pgfleet.providers.schema.statements import Roles, scripts, texts

#: Beyond LOGIN. The owner makes tables (migrate), the application reads and writes them, the monitor sees statistics.
ROLES = Roles(owner="pgfleet_owner", app="pgfleet_app", monitor="pgfleet_monitor")
_ROLES = (ROLES.owner, ROLES.app, ROLES.monitor)

_CLUSTER = (
    "revoke connect, temporary on database template1 from public",
    "revoke connect, temporary on database postgres from public",
    "grant connect on database postgres to pgfleet_monitor, rewind",
    "grant pg_monitor to pgfleet_monitor",
)

#: In the application's database. Default privileges: whatever the owner makes, the application may use and not change.
_DATABASE = (
    "grant all on schema public to pgfleet_owner",
    "revoke create on schema public from public",
    "grant usage on schema public to pgfleet_app, pgfleet_monitor",
    "create schema if not exists pgfleet authorization pgfleet_owner",
    "grant usage on schema pgfleet to pgfleet_app, pgfleet_monitor",
    """alter default privileges for role pgfleet_owner in schema public
       grant select, insert, update, delete on tables to pgfleet_app""",
    "alter default privileges for role pgfleet_owner in schema public grant usage, select on sequences to pgfleet_app",
    "alter default privileges for role pgfleet_owner in schema pgfleet grant select on tables to pgfleet_app, pgfleet_monitor",
)


@cache
def superusers() -> tuple[str, ...]:
    """Functions that belong to one: they tell of the server what nobody else may see."""
    folder = files("pgfleet.providers.local")
    return tuple(folder.joinpath(name).read_text(encoding="utf-8") for name in ("timelines.sql", "confirmed.sql"))


def prepared_digest(database: str) -> str:
    """Changes when what is prepared changes; it is kept on each shard, and compared by the plan."""
    return hashlib.sha256(repr((_ROLES, _CLUSTER, _DATABASE, superusers(), texts(), database)).encode()).hexdigest()[:16]


async def prepare_shard(folder: Path, book: AddressBook, primary: NodeAddress, credentials: Credentials) -> None:
    """Bring ``primary`` to the state that :func:`prepared_digest` names.

    :raises asyncpg.PostgresError: the server said no; what was done can be done again.
    """
    database = quote_identifier(book.database)
    connection = await connect_as(folder, primary, "postgres", "postgres", timeout=30.0)
    try:
        for role in _ROLES:
            await _role(connection, role, credentials.verifiers[role])
        for statement in _CLUSTER:
            await connection.execute(statement)
        if not await connection.fetchval("select true from pg_database where datname = $1", book.database):
            await connection.execute(f"create database {database} owner pgfleet_owner")
        await connection.execute(f"revoke connect, temporary on database {database} from public")
        await connection.execute(f"grant connect on database {database} to pgfleet_app, pgfleet_monitor")
    finally:
        await connection.close()
    connection = await connect_as(folder, primary, "postgres", book.database, timeout=30.0)
    try:
        async with connection.transaction():
            for statement in _DATABASE:
                await connection.execute(statement)
            for script in superusers():
                await connection.execute(script)
    finally:
        await connection.close()
    # What is the owner's is written as the owner, who logs in. (SET ROLE would not do: a trigger of the owner's, on a table that
    # is written to, could undo it and be a superuser.) The digest last: who was stopped in between begins again.
    connection = await connect_as(folder, primary, ROLES.owner, book.database, timeout=30.0)
    try:
        async with connection.transaction():
            for script in scripts(ROLES):
                await connection.execute(script)
            await connection.execute(
                """insert into pgfleet.shard (fleet, shard, prepared) values ($1, $2, $3)
                   on conflict (only_row) do update set fleet = $1, shard = $2, prepared = $3, at = now()""",
                book.fleet, primary.name.shard, prepared_digest(book.database),
            )  # fmt: skip
    finally:
        await connection.close()


async def _role(connection: asyncpg.Connection[asyncpg.Record], role: str, verifier: str) -> None:
    there = await connection.fetchval("select true from pg_roles where rolname = $1", role)
    # Utility statements take no parameters: the server itself quotes the values, and it is given a verifier, not a password.
    sentence = "alter role %I login password %L" if there else "create role %I login password %L"
    await connection.execute(await connection.fetchval("select format($1, $2::text, $3::text)", sentence, role, verifier))


async def read_prepared(
    folder: Path, book: AddressBook, primary: NodeAddress, *, timeout: float = 2.0
) -> tuple[str | None, PlacementSeen | None]:
    """The digest that ``primary`` was prepared with, and the map that it holds; None where there is none, or nobody to ask."""
    try:
        connection = await connect_as(folder, primary, "pgfleet_monitor", book.database, timeout=timeout)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return None, None
    prepared: str | None = None
    try:
        prepared = await connection.fetchval("select prepared from pgfleet.shard")
        return prepared, await seen_placement(connection)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return prepared, None
    finally:
        await connection.close(timeout=timeout)
