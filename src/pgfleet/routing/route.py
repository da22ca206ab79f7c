"""A route: where one kind of call for one key goes now, in words that any driver understands. A value; no driver is involved.

It is true for the version of the routing table that it was made from. Whoever keeps a route keeps yesterday's news: ask
for a new one for every transaction, it costs microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import quote

from pgfleet.names import NodeName
from pgfleet.routing.choose import Choice
from pgfleet.routing.placement import Placed

Role = Literal["read", "write"]

#: What a driver of libpq's family is told by keyword: texts, and the port. To a type checker they are of any type, or every other
#: argument of a driver's ``connect`` might be among them (a TypedDict does for mypy; pyright holds it open).
ConnectWords = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tls:
    """How the server is spoken to, in libpq's words (PostgreSQL docs, 34.19).

    :param mode: ``verify-full``: only a certificate of ``authority`` for that host will do; ``disable``: in the clear.
    :param authority: path of the authority's certificate; empty: the system's authorities.
    """

    mode: str = "disable"
    authority: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """Made by ``fleet.route(...)``.

    :param node: the member's name within its shard: ``us-east-1``.
    :param role: ``read``: a session there is READ ONLY, also where the node happens to be the primary.
    :param because: why this shard, and why this node of it; a sentence.
    :param version: of the routing table; a smaller one is older.
    :param claim: ``root table:key``, what a guard on the shard compares ownership with; empty: nothing is claimed.
    :param epoch: of the placement; 0: none is claimed.
    """

    shard: str
    node: str
    region: str
    host: str
    port: int
    database: str
    role: Role
    because: str
    version: int
    claim: str = ""
    epoch: int = 0
    tls: Tls = Tls()

    @classmethod
    def of(
        cls, choice: Choice, placed: Placed, role: Role, *, database: str, version: int, claim: str = "", epoch: int = 0,
        tls: Tls = Tls(),
    ) -> Route:  # fmt: skip
        """The route that follows from where the key is placed and which node was chosen."""
        node = choice.node
        because = f"{placed.because}; {choice.because}"
        return cls(
            placed.shard, node.name.member, node.region, node.host, node.port, database, role, because, version, claim, epoch, tls
        )

    @property
    def name(self) -> NodeName:
        """The node, as the rest of pgfleet calls it."""
        return NodeName(self.shard, self.region, int(self.node.rpartition("-")[2]))

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def settings(self) -> Mapping[str, str]:
        """Parameters that a session has from its first packet on: READ ONLY or not, and under which epoch it writes."""
        if self.role == "read":
            return {"default_transaction_read_only": "on"}
        claimed = {"pgfleet.epoch": str(self.epoch)} if self.epoch else {}
        return {"default_transaction_read_only": "off"} | claimed

    def connect_kwargs(self, *, user: str | None = None, password: str | None = None) -> ConnectWords:
        """Keywords of libpq, as psycopg takes them. A login is in them only where the caller puts one in.

        A write's session is refused by the driver itself when the server turns out not to be writable
        (``target_session_attrs``): a route that became old between choosing and connecting does no harm.
        """
        words: ConnectWords = {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "sslmode": self.tls.mode,
            "options": " ".join(f"-c {name}={value}" for name, value in self.settings.items()),
        }
        if self.tls.authority:
            words["sslrootcert"] = self.tls.authority
        if self.role == "write":
            words["target_session_attrs"] = "read-write"
        if user is not None:
            words["user"] = user
        if password is not None:
            words["password"] = password
        return words

    def dsn(self, *, user: str | None = None) -> str:
        """A URI that libpq's drivers and asyncpg understand alike. A password is never in it: it would be in logs next."""
        words = self.connect_kwargs()
        host = f"[{self.host}]" if ":" in self.host else quote(self.host, safe="")
        who = f"{quote(user, safe='')}@" if user else ""
        asked = {name: value for name, value in words.items() if name not in ("host", "port", "dbname")}
        query = "&".join(f"{name}={quote(str(value), safe='/')}" for name, value in asked.items())
        return f"postgresql://{who}{host}:{self.port}/{quote(self.database, safe='')}?{query}"

    def __str__(self) -> str:
        return f"{self.role} {self.shard}/{self.node} at {self.address}, because {self.because}"

    def to_json(self) -> dict[str, object]:
        """A stable shape."""
        return asdict(self)
