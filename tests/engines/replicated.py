<<<<<<< HEAD
"""Shards of real servers without Patroni and etcd: a primary each, and replicas that stream from it; and the state folder that
the client reads. A promotion is made by hand."""
=======
"""One shard of real servers, a primary and its streaming replicas, without Patroni and etcd: a promotion is made by hand.

Enough for a client whose topology is what the nodes say themselves.
"""
>>>>>>> ede3e94 (A route is a value; observers, adapters for psycopg and SQLAlchemy, ASGI tokens: first bricks, not yet run)

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

<<<<<<< HEAD
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
=======
from tests.engines.scratch import POSTGRES_USER, Server, binaries, free_port, make_shards

from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.names import NodeName
from pgfleet.routing.placement import Placement, TablePlacement

SHARD = "stem"
#: A second shard that has one server alone, for what concerns two.
OTHER = "arts"
TABLE = "create table questions (subject text, id uuid default gen_random_uuid(), stem text, primary key (subject, id))"
>>>>>>> ede3e94 (A route is a value; observers, adapters for psycopg and SQLAlchemy, ASGI tokens: first bricks, not yet run)


@dataclass
class Replicated:
<<<<<<< HEAD
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
=======
    """:param folder: the fleet's state folder, which ``pgfleet.connect`` is given. :param nodes: by name; the first of
    :data:`SHARD` is the primary."""

    folder: Path
    nodes: dict[NodeName, Server]
    primary: NodeName
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def replicas(self) -> list[NodeName]:
        return [name for name in self.nodes if name.shard == SHARD and name != self.primary]

    def psql(self, text: str, node: NodeName | None = None, database: str = "app") -> None:
        """As the superuser."""
        self.nodes[node or self.primary].psql(text, database)

    def send(self, node: NodeName, number: signal.Signals) -> None:
        """A signal to the postmaster and all of its children, which are in sessions of their own."""
        process = self.nodes[node].process
        assert process is not None
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in [process.pid, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def fail_over(self, *, kill: bool = True) -> NodeName:
        """The primary dies, the first replica is promoted; who it is. :param kill: false: it is stopped already."""
        if kill:
            self.nodes[self.primary].stop()
        heir = self.replicas[0]
        server = self.nodes[heir]
        server.run(str(binaries() / "pg_ctl"), "promote", "-w", "-D", str(server.data))
        self.primary = heir
        return heir

    def write_state(self) -> None:
        book = AddressBook(
            fleet=self.folder.name, folder=str(self.folder), database="app",
            nodes=tuple(NodeAddress(name, "voter", "127.0.0.1", server.port, 0) for name, server in self.nodes.items()),
        )  # fmt: skip
        (self.folder / "addresses.json").write_text(book.to_json())
        listed = {"PMP": SHARD, "AWS": SHARD, "Art": OTHER}
        placement = Placement({"questions": TablePlacement("subject", listed, {}, None)}, epoch=7)
        (self.folder / "placement.json").write_text(placement.to_json())


@contextmanager
def replicated(replicas: int = 1, *, other: bool = False) -> Iterator[Replicated]:
    """Running; gone afterwards.

    :param other: with a server for :data:`OTHER`.
    """
    root = Path(tempfile.mkdtemp(prefix="pgfleet-"))
    root.chmod(0o755)
    shards = make_shards(root, "bank", SHARD, *([OTHER] if other else []))
    first = NodeName(SHARD, "east", 1)
    made = Replicated(shards.folder, {first: shards.servers[SHARD]}, first)
    if other:
        made.nodes[NodeName(OTHER, "east", 1)] = shards.servers[OTHER]
    try:
        for name in made.nodes:
            made.psql(f"set role pgfleet_owner; {TABLE}", name)
        for number in range(replicas):
            region = "west" if number == 0 else "east"
            made.nodes[NodeName(SHARD, region, number + 1)] = _follow(root / "servers" / f"replica-{number}", made.nodes[first])
        made.write_state()
        yield made
    finally:
        for server in made.nodes.values():
            server.stop()
        shutil.rmtree(root)


def _follow(folder: Path, primary: Server) -> Server:
    folder.mkdir()
    if POSTGRES_USER:
        shutil.chown(folder, POSTGRES_USER)
    replica = Server(folder, free_port())
    replica.run(
        str(binaries() / "pg_basebackup"), "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres", "-D", str(replica.data),
        "-R", "-X", "stream", "--checkpoint=fast", "--no-sync",
    )  # fmt: skip
>>>>>>> ede3e94 (A route is a value; observers, adapters for psycopg and SQLAlchemy, ASGI tokens: first bricks, not yet run)
    replica.start()
    return replica
