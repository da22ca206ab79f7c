"""The address book: where everything of a running fleet listens. It holds no secret; any process may read it.

Written by the provider at apply, read by the client, the topology and the reports. Nothing else in the project assumes
that two engines are on the same host.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from pgfleet.names import NodeName

Kind = Literal["voter", "reader"]
#: ``fleet``: by the fleet's own authority, where it has one. The others are a DSN's (spec/dsn.py).
Protection = Literal["fleet", "off", "require", "verify-ca", "verify-full"]
Through = Literal["direct", "pooler"]


def read_write_database(shard: str) -> str:
    """What a client of a pooler writes as database name to write to ``shard``."""
    return f"{shard}_rw"


def read_only_database(shard: str) -> str:
    """What a client of a pooler writes as database name to read from a replica of ``shard``."""
    return f"{shard}_ro"


#: What a pooler's server connection for reads begins with, and returns to. HAProxy gives the primary to readers when no replica
#: is left, and reads are READ ONLY there too; and a read whose client has gone ends within a second, instead of holding a
#: connection that nobody counts.
READS_BEGIN = "set default_transaction_read_only to on; set client_connection_check_interval to 1000"


@dataclass(frozen=True, slots=True)
class EtcdAddress:
    """One etcd member. ``region`` is where it stands."""

    name: str
    region: str
    host: str
    client_port: int
    peer_port: int

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.client_port}"


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """One PostgreSQL server, and the Patroni beside it where that is ours.

    :param rest_port: Patroni's; 0: none that we may ask.
    :param database: where it differs from the book's; empty: the book's.
    :param user: who connects, whatever role was meant; empty: the fleet's own roles.
    :param secret: the file below ``secrets`` that holds the user's password; empty: that of the role, or, with a ``user``, none.
    :param authority: path of the certificates that vouch for it, with ``verify-ca`` and ``verify-full``; empty: the system's.
    """

    name: NodeName
    kind: Kind
    host: str
    port: int
    rest_port: int = 0
    database: str = ""
    user: str = ""
    secret: str = ""
    protection: Protection = "fleet"
    authority: str = ""

    @property
    def rest_url(self) -> str:
        return f"https://{self.host}:{self.rest_port}"


@dataclass(frozen=True, slots=True)
class PoolerAddress:
    """A region's PgBouncer, and the HAProxy behind it: per shard a read-write and a read-only port.

    :param prepared: prepared statements that it keeps for its clients; 0: it does not know them (before 1.21), so that none may
        be sent through it.
    """

    region: str
    host: str
    port: int
    read_write: dict[str, int] = field(default_factory=dict)
    read_only: dict[str, int] = field(default_factory=dict)
    prepared: int = 0


@dataclass(frozen=True, slots=True)
class AddressBook:
    """Everything of one fleet.

    :param database: the database that holds the application's tables, the same on every shard.
    :param folder: absolute path of the fleet's state folder on this host (secrets and certificates are below it).
    :param etcd: none where the nodes alone tell who is primary.
    :param through: whether applications connect to the nodes, or to their region's pooler.
    :param per_process: connections for statements that one process of an application opens: to one node, or through the pooler
        for one shard.
    """

    fleet: str
    folder: str
    database: str
    etcd: tuple[EtcdAddress, ...] = ()
    nodes: tuple[NodeAddress, ...] = ()
    poolers: tuple[PoolerAddress, ...] = ()
    through: Through = "direct"
    per_process: int = 10

    def database_of(self, node: NodeAddress) -> str:
        return node.database or self.database

    def node(self, name: NodeName) -> NodeAddress | None:
        return next((n for n in self.nodes if n.name == name), None)

    def of_shard(self, shard: str) -> tuple[NodeAddress, ...]:
        return tuple(n for n in self.nodes if n.name.shard == shard)

    def to_json(self) -> str:
        """Stable text: keys in order, a name as ``shard/region-number``."""
        document = asdict(self)
        for raw, node in zip(document["nodes"], self.nodes, strict=True):
            raw["name"] = str(node.name)
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> AddressBook:
        """:raises ValueError: the text is not an address book."""
        try:
            raw = json.loads(text)
            return cls(
                fleet=raw["fleet"], folder=raw["folder"], database=raw["database"],
                etcd=tuple(EtcdAddress(**e) for e in raw["etcd"]),
                nodes=tuple(NodeAddress(**(n | {"name": NodeName.parse(n["name"])})) for n in raw["nodes"]),
                poolers=tuple(PoolerAddress(**p) for p in raw["poolers"]),
                # A book that was written before these were kept has them not.
                **{name: raw[name] for name in ("through", "per_process") if name in raw},
            )  # fmt: skip
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an address book: {error!r}") from error
