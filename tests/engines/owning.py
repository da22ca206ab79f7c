"""Shards that own something: single servers with the fleet's own schema, a table or two, and a map in force."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from tests.engines.scratch import SET_UP, Shards

from pgfleet.providers.ownership import Patience, change_map
from pgfleet.providers.schema.statements import Roles, scripts
from pgfleet.routing.placement import Placement
from pgfleet.runtime.sql import Connection, Login, connect

ROLES = Roles(owner="pgfleet_owner", app="pgfleet_app", monitor="pgfleet_monitor")
QUICK = Patience(lock=0.2, pause=0.1, whole=2.0, statement=20.0)

TABLES = """
create table q (subject text not null, id bigint not null, note text not null default '', primary key (subject, id));
create table answers (topic text not null, number bigint not null, primary key (topic, number));
create table free (n integer);
create table audit_logs (region text not null, id bigint not null, at date not null, primary key (region, id, at))
    partition by range (at);
create table audit_logs_p1 partition of audit_logs for values from ('2024-01-01') to ('2025-01-01');
create table audit_logs_p2 partition of audit_logs for values from ('2025-01-01') to ('2026-01-01');
"""


async def prepare(shards: Shards, tables: str = TABLES) -> None:
    """A new database on every server with what ``prepare_shard`` makes, without a provider: the schema pgfleet, made by its
    owner; then ``tables``. The first one made is kept, and copied the next time."""
    for name, server in shards.servers.items():
        kept = f"kept_{hashlib.sha256(tables.encode()).hexdigest()[:16]}"
        async with session(shards, name, "postgres", database="postgres") as admin:
            known = await admin.fetchval("select true from pg_database where datname = $1", kept)
            await admin.execute("drop database if exists app with (force)")
            if known:
                await admin.execute(f"create database app template {kept} owner pgfleet_owner")
                continue
        shards.servers[name].psql("create database app owner pgfleet_owner")
        server.psql(SET_UP[SET_UP.index("alter schema") :], "app")
        server.psql(
            "create schema pgfleet authorization pgfleet_owner;grant usage on schema pgfleet to pgfleet_app, pgfleet_monitor;",
            "app",
        )
        async with session(shards, name, "pgfleet_owner") as connection:
            for script in scripts(ROLES):
                await connection.execute(script)
            await connection.execute("insert into pgfleet.shard (fleet, shard, prepared) values ('f', $1, '')", name)
            if tables:
                await connection.execute(tables)
        async with session(shards, name, "postgres", database="postgres") as admin:
            await admin.execute(f"create database {kept} template app owner pgfleet_owner")


def reach_of(shards: Shards, opened: Callable[[Connection], Connection] = lambda it: it) -> Callable[[str], Any]:
    """How deeds come to a shard. ``opened`` may put something in between."""

    @asynccontextmanager
    async def reach(shard: str) -> AsyncIterator[Connection]:
        login = Login("pgfleet_owner", "app", "pgfleet_owner")
        port = shards.servers[shard].port
        connection = await connect("127.0.0.1", port, login, settings={"statement_timeout": "20s"}, seconds=10.0)
        try:
            yield opened(connection)
        finally:
            connection.terminate()

    return reach


async def put(shards: Shards, placement: Placement, patience: Patience = QUICK) -> None:
    """Make ``placement`` the map of every shard."""
    await change_map(reach_of(shards), shards.servers, placement, patience=patience)


@asynccontextmanager
async def session(
    shards: Shards, shard: str, role: str = "pgfleet_app", settings: Mapping[str, str] | None = None, database: str = "app"
) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A client's session. ``settings``: such as pgfleet.epoch, sent with the start-up packet."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(
        host="127.0.0.1", port=shards.servers[shard].port, user=role, password=role, database=database,
        server_settings=dict(settings or {}), timeout=10, command_timeout=30,
    )  # fmt: skip
    try:
        yield connection
    finally:
        await connection.close(timeout=5)
