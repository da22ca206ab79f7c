"""The processes of a fleet on this host: for each its files and its unit. Values in, values out; nothing is written here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pgfleet.facts.addresses import AddressBook, NodeAddress, PoolerAddress
from pgfleet.providers.local.credentials import POOLED, Credentials
from pgfleet.providers.local.engines import Engines
from pgfleet.providers.local.units import NodeUnit, Unit
from pgfleet.render.etcd import EtcdMember, render_etcd
from pgfleet.render.haproxy import Frontend, Server, render_haproxy
from pgfleet.render.patroni import PatroniNode, render_patroni
from pgfleet.render.pgbouncer import Pooler, render_pgbouncer, render_userlist
from pgfleet.spec.fleet import Fleet
from pgfleet.spec.shape import ShardShape

#: Only applications on this host exist on this provider.
ALLOWED = "127.0.0.1/32"


@dataclass(frozen=True, slots=True)
class Composed:
    """One process: its ``folder`` and more ``folders``, and ``files`` by path, all 0700 and 0600 and the engines' own."""

    unit: Unit
    folder: Path
    files: Mapping[Path, str]
    folders: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """What every process of one fleet shares."""

    fleet: Fleet
    shapes: Sequence[ShardShape]
    book: AddressBook
    folder: Path
    engines: Engines
    credentials: Credentials
    configurations: Mapping[str, Mapping[str, object]]

    @property
    def environment(self) -> dict[str, str]:
        """As little as engines need: nothing of the caller's environment reaches them."""
        path = f"{self.engines.postgres.folder}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        return {"PATH": path, "LANG": "C.UTF-8", "HOME": str(self.folder)}

    def certificate(self, name: str) -> str:
        return str(self.folder / "certificates" / name)

    def log(self, unit: str) -> str:
        return str(self.folder / "logs" / f"{unit.replace('/', '.')}.log")


def compose(site: Site) -> dict[str, Composed]:
    """Every process of the fleet by its unit's name, in the order etcd, nodes, poolers."""
    made = [
        *(_etcd(site, at) for at in range(len(site.book.etcd))),
        *(_node(site, node) for node in site.book.nodes),
        *(one for pooler in site.book.poolers for one in (_pgbouncer(site, pooler), _haproxy(site, pooler))),
    ]
    return {one.unit.name: one for one in made}


def digest(composed: Composed) -> str:
    """What tells one configuration of a process from another. Compose with placeholders first: no secret may enter it."""
    hashed = hashlib.sha256(repr(composed.unit.argv).encode())
    hashed.update(repr([str(folder) for folder in composed.folders]).encode())
    for path, text in sorted(composed.files.items()):
        hashed.update(f"{path}\0{text}\0".encode())
    return hashed.hexdigest()[:16]


def with_digests(real: Mapping[str, Composed], digests: Mapping[str, str]) -> dict[str, Composed]:
    """``real`` with the digests that were taken without secrets."""
    return {name: replace(one, unit=replace(one.unit, digest=digests[name])) for name, one in real.items()}


def _etcd(site: Site, at: int) -> Composed:
    members = [EtcdMember(e.name, e.host, e.client_port, e.peer_port) for e in site.book.etcd]
    folder = site.folder / "etcd" / str(at + 1)
    argv = render_etcd(
        members[at], members, binary=site.engines.etcd, token=f"{site.fleet.fleet}-{site.credentials.token}",
        folder=str(folder / "data"), certificate=site.certificate("server.crt"), key=site.certificate("server.key"),
        authority=site.certificate("ca.crt"), client_authorities=site.certificate("etcd-clients.crt"),
    )  # fmt: skip
    name = f"etcd/{at + 1}"
    unit = Unit(
        name=name, argv=argv, cwd=str(folder), env=site.environment, user=site.engines.user.name, isolate=False,
        log=site.log(name), node=None, digest="", on_change="restart", nofile=8192,
    )  # fmt: skip
    return Composed(unit, folder, {})


def _node(site: Site, node: NodeAddress) -> Composed:
    folder = site.folder / "nodes" / node.name.shard / node.name.member
    passwords = site.credentials.passwords
    text = render_patroni(
        PatroniNode(
            shard=node.name.shard, member=node.name.member, folder=str(folder), bin_dir=str(site.engines.postgres.folder),
            host=node.host, port=node.port, rest_port=node.rest_port,
            etcd=tuple(f"{e.host}:{e.client_port}" for e in site.book.etcd), voter=node.kind == "voter",
            region=node.name.region, allowed=ALLOWED, certificate=site.certificate("server.crt"),
            key=site.certificate("server.key"), authority=site.certificate("ca.crt"),
            superuser_password=passwords["postgres"], replication_password=passwords["replicator"],
            rewind_password=passwords["rewind"], etcd_password=site.credentials.etcd["patroni"],
        ),
        # Only the shard's first start reads this part; afterwards it lives in etcd. Rendered empty, it would not change a node's
        # digest with every setting, so that the digest speaks of the node alone.
        site.configurations.get(node.name.shard, {}),
    )  # fmt: skip
    name = f"node/{node.name}"
    config = folder / "patroni.yml"
    unit = Unit(
        name=name, argv=(site.engines.patroni, str(config)), cwd=str(folder), env=site.environment,
        user=site.engines.user.name, isolate=True, log=site.log(name),
        node=NodeUnit(shard=node.name.shard, member=node.name.member, data_dir=str(folder / "data")), digest="",
        on_change="reload", nofile=8192,
    )  # fmt: skip
    return Composed(unit, folder, {config: text}, (folder / "log",))  # Patroni does not make the folder of its log


def _pgbouncer(site: Site, pooler: PoolerAddress) -> Composed:
    folder = site.folder / "poolers" / pooler.region
    pools = site.fleet.pools
    userlist, config = folder / "userlist.txt", folder / "pgbouncer.ini"
    text = render_pgbouncer(
        Pooler(
            host=pooler.host, port=pooler.port, database=site.book.database, read_write=pooler.read_write,
            read_only=pooler.read_only, max_client_conn=pools.max_client_conn, default_pool_size=pools.default_pool_size,
            query_wait_timeout=float(pools.query_wait_timeout), certificate=site.certificate("server.crt"),
            key=site.certificate("server.key"), userlist=str(userlist), stats_user="pgfleet_monitor",
            prepared=pooler.prepared,
        )
    )  # fmt: skip
    verifiers = {role: site.credentials.verifiers[role] for role in POOLED}
    name = f"pgbouncer/{pooler.region}"
    databases = 2 * len(site.shapes)
    unit = Unit(
        name=name, argv=(site.engines.pgbouncer, str(config)), cwd=str(folder), env=site.environment,
        user=site.engines.user.name, isolate=False, log=site.log(name), node=None, digest="", on_change="reload",
        # PgBouncer docs: max_client_conn + databases × pool size × users, and some for itself.
        nofile=pools.max_client_conn + databases * pools.default_pool_size * len(POOLED) + 64,
    )  # fmt: skip
    return Composed(unit, folder, {config: text, userlist: render_userlist(verifiers)})


def _haproxy(site: Site, pooler: PoolerAddress) -> Composed:
    folder = site.folder / "poolers" / pooler.region
    frontends = []
    for shape in site.shapes:
        nodes = site.book.of_shard(shape.name)
        servers = [Server(n.name.member, n.name.region, n.host, n.port, n.rest_port, n.kind == "voter") for n in nodes]
        frontends.append(Frontend(shape.name, pooler.read_write[shape.name], pooler.read_only[shape.name], tuple(servers)))
    maxconn = max(2000, site.fleet.pools.max_connections * len(site.book.nodes))
    config = folder / "haproxy.cfg"
    text = render_haproxy(
        pooler.region, pooler.host, frontends, authority=site.certificate("ca.crt"), maxconn=maxconn,
        regions=len(site.book.poolers),
    )  # fmt: skip
    name = f"haproxy/{pooler.region}"
    unit = Unit(
        name=name, argv=(site.engines.haproxy, "-W", "-db", "-f", str(config)), cwd=str(folder), env=site.environment,
        user=site.engines.user.name, isolate=False, log=site.log(name), node=None, digest="", on_change="reload",
        reload_signal="USR2", nofile=2 * maxconn + 256,
    )  # fmt: skip
    return Composed(unit, folder, {config: text})
