"""What an open fleet consists of where its applications go through a pooler: no connection to any node.

For applications of so many processes that the sum of their pools would be more than a node accepts. Who is primary is the
pooler's to know; etcd tells the client where the histories are, and the map.
"""

from __future__ import annotations

from dataclasses import replace

from pgfleet.client.carrying import Carrying
from pgfleet.client.explanation import Explanation
from pgfleet.client.maps import newest_of
from pgfleet.client.observing import Observing
from pgfleet.client.open import Opened
from pgfleet.client.outcome import Outcomes
from pgfleet.client.placed import Placed
from pgfleet.client.pooled_borrowing import Mute, PooledBorrowing, PrimaryProber
from pgfleet.client.pooled_reading import PooledReader
from pgfleet.client.pooled_writing import PooledWriter
from pgfleet.client.pooler import Pooler, PoolerPool
from pgfleet.client.router import Router
from pgfleet.facts.addresses import read_only_database, read_write_database
from pgfleet.routing.placement import Placement


class Pooled:
    """:param size: connections to the pooler for one shard at most."""

    def __init__(self, opened: Opened, region: str | None, size: int, carrying: Carrying, observing: Observing) -> None:
        self.pooler = Pooler(opened, region=region, size=size)
        probers = (Mute(), PrimaryProber(self.pooler), Mute())
        self.router = Router(opened, region=region, size=size, observing=observing, probers=probers, direct=False)
        self._borrowing = PooledBorrowing(self.router, self.pooler)
        self.reader = PooledReader(self.router, carrying, self._borrowing)
        self.outcomes = Outcomes(self.router, self._borrowing)
        self._shards = tuple(dict.fromkeys(node.name.shard for node in opened.book.nodes))
        self._carrying = carrying

    def writer(self, placed: Placed) -> PooledWriter:
        return PooledWriter(self.router, placed, self._carrying, self.outcomes, self.reader, self._borrowing)

    async def newest_map(self) -> Placement | None:
        """The map with the highest epoch that a shard has."""
        return await newest_of([self.pooler.pools(shard, reads=False)[0] for shard in self._shards])

    def near(self) -> list[PoolerPool]:
        """Those that are used now, for reads and for writes."""
        return [self.pooler.pools(shard, reads=reads)[0] for shard in self._shards for reads in (True, False)]

    def explained(self, found: Explanation) -> Explanation:
        """``found``, as it is through a pooler: which node answers is not the client's choice."""
        where, shard = f"the pooler of {self.pooler.region}", found.shard
        return replace(
            found, read=f"{where}, {read_only_database(shard)}", write=f"{where}, {read_write_database(shard)}", passed_over={},
            read_because="it leads to replicas, near ones first; one without this caller's last write is passed over",
            write_because="it leads to the primary",
        )  # fmt: skip
