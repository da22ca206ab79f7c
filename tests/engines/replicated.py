"""Shards of real servers without Patroni and etcd: a primary each, and replicas that stream from it; and the state folder that
the client reads. A promotion is made by hand."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from tests.engines.scratch import Server, binaries, free_port, make_shards

import pgfleet
from pgfleet.client.fleet import Fleet
from pgfleet.control.connect import tls
from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.names import NodeName
from pgfleet.providers.local.prepare import ROLES
from pgfleet.providers.schema.statements import scripts
from pgfleet.routing.placement import Placement
from pgfleet.spec.load import load

#: The primary in the first region, a replica in each of the others.
REGIONS = ("us-east", "us-west", "eu-west")

FLEET = """
fleet: {name}
regions: {{us-east: {{}}, us-west: {{}}, eu-west: {{}}}}
shards: {{{shards}}}
tables:
  questions: {{key: subject, place: {{{place}}}, elsewhere: {{hash: 16, over: [{names}]}}}}
"""

TABLE = """
create table questions (
    subject text, id uuid default gen_random_uuid(), stem text not null default '', primary key (subject, id)
);
"""


@dataclass
class Shard:
    """:param servers: by region, the primary's first; after a promotion ``primary`` says whose it is."""

    name: str
    servers: dict[str, Server]
    primary: str = REGIONS[0]

    def node(self, region: str) -> NodeName:
        return NodeName(self.name, region, 1)

    def psql(self, sql: str, region: str | None = None) -> None:
        self.servers[region or self.primary].psql(sql, "app")

    def promote(self, region: str) -> None:
        """Make that replica the primary, and have the others that run follow it."""
        server = self.servers[region]
        server.run(str(binaries() / "pg_ctl"), "promote", "-w", "-D", str(server.data))
        self.primary = region
        for other, follower in self.servers.items():
            if other != region and follower.process is not None and (follower.data / "standby.signal").exists():
                follow(follower, server)
                follower.psql("select pg_reload_conf()")

    def signal(self, region: str, number: signal.Signals) -> None:
        """Send a signal to every process of one server."""
        process = self.servers[region].process
        assert process is not None
        pids = [process.pid, *children(process.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def follow(replica: Server, primary: Server) -> None:
    source = f"host=127.0.0.1 port={primary.port} user=postgres password=postgres sslmode=disable"
    with (replica.data / "postgresql.auto.conf").open("a") as stream:
        stream.write(
            f"primary_conninfo = '{source}'\nwal_retrieve_retry_interval = '100ms'\nrecovery_target_timeline = 'latest'\n"
        )


@dataclass
class Replicated:
    """:param folder: the state folder."""

    folder: Path
    shards: dict[str, Shard]
    placement: Placement
    extra: dict[str, Any] = field(default_factory=dict)

    def client(self, **options: Any) -> Fleet:
        return pgfleet.connect(self.folder, **options)

    def write_state(self) -> None:
        nodes = tuple(
            NodeAddress(shard.node(region), "voter", "127.0.0.1", server.port, 0)
            for shard in self.shards.values()
            for region, server in shard.servers.items()
        )
        book = AddressBook(self.folder.name, str(self.folder), "app", nodes=nodes)
        (self.folder / "addresses.json").write_text(book.to_json())
        (self.folder / "placement.json").write_text(self.placement.to_json())

    async def connect(self, shard: str, region: str | None = None, role: str = "pgfleet_owner") -> asyncpg.Connection[Any]:
        server = self.shards[shard].servers[region or self.shards[shard].primary]
        return await asyncpg.connect(
            host="127.0.0.1", port=server.port, user=role, password=role, database="app", ssl=tls(self.folder)
        )


@contextmanager
def replicated(names: tuple[str, ...] = ("one",), regions: tuple[str, ...] = REGIONS, table: str = TABLE) -> Iterator[Replicated]:
    """Shards ``names`` with a server in each of ``regions``; all gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="pgfleet-"))
    root.chmod(0o755)
    made = make_shards(root, "replicated", *names)
    shards = {name: Shard(name, {regions[0]: made.servers[name]}) for name in names}
    try:
        for shard in shards.values():
            primary = shard.servers[shard.primary]
            primary.psql(f"grant usage on schema public to pgfleet_app; set role pgfleet_owner; {table}", "app")
            primary.psql(schema(), "app")
            for region in regions[1:]:
                shard.servers[region] = copy(primary, root / "servers" / f"{shard.name}-{region}")
        place = ", ".join(f"{name}: [{name}-a, {name}-b]" for name in names)
        text = FLEET.format(
            name="replicated", shards=", ".join(f"{n}: {{home: us-east}}" for n in names), place=place, names=", ".join(names)
        )
        stage = Replicated(made.folder, shards, Placement.of(load("fleet.yaml", text)))
        stage.write_state()
        yield stage
    finally:
        for shard in shards.values():
            for server in shard.servers.values():
                if server.process is not None:
                    for pid in (server.process.pid, *children(server.process.pid)):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGCONT)
                server.stop()
        shutil.rmtree(root)


def schema() -> str:
    """The fleet's own schema, as apply makes it."""
    return "\n".join(
        ["create schema if not exists pgfleet authorization pgfleet_owner;", "grant usage on schema pgfleet to pgfleet_app;",
         "set role pgfleet_owner;", *scripts(ROLES)]
    )  # fmt: skip


def copy(primary: Server, folder: Path) -> Server:
    """A replica of ``primary``, started."""
    replica = Server(folder, free_port())
    folder.mkdir(parents=True)
    owner = primary.data.stat().st_uid
    os.chown(folder, owner, -1)
    primary.run(
        str(binaries() / "pg_basebackup"), "-D", str(replica.data), "-c", "fast", "-X", "stream", "--no-sync",
        "-d", f"host=127.0.0.1 port={primary.port} user=postgres password=postgres sslmode=disable",
    )  # fmt: skip
    (replica.data / "standby.signal").touch()
    os.chown(replica.data / "standby.signal", owner, -1)
    follow(replica, primary)
    replica.start()
    return replica
