"""What an open fleet consists of, and in which order it begins and ends."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

from pgfleet.client.carrying import Carrying
from pgfleet.client.lookups import Lookups
from pgfleet.client.maps import newest_map
from pgfleet.client.observing import Observing
from pgfleet.client.open import Opened
from pgfleet.client.outcome import Outcomes
from pgfleet.client.placed import Placed
from pgfleet.client.pooled import Pooled
from pgfleet.client.reading import Read, Reader
from pgfleet.client.router import Router
from pgfleet.client.writing import Writer
from pgfleet.facts.addresses import Through
from pgfleet.names import NodeName
from pgfleet.routing.route import Tls


class Parts:
    """:param through: the nodes themselves, or the poolers; None: as the address book says.
    :param size: connections for statements at most; None: as the address book says.
    """

    def __init__(
        self, opened: Opened, region: str | None, carrying: Carrying, observing: Observing,
        *, through: Through | None, size: int | None,
    ) -> None:  # fmt: skip
        self.opened, self.carrying = opened, carrying
        known = sorted({node.name.region for node in opened.book.nodes} | {pooler.region for pooler in opened.book.poolers})
        if region is not None and region not in known:
            told = f"{opened.book.fleet} has no node in region {region!r}: reads go anywhere; it has {', '.join(known)}"
            warnings.warn(told, RuntimeWarning, stacklevel=3)
        size = opened.book.per_process if size is None else size
        self.pooled: Pooled | None = None
        if (through or opened.book.through) == "pooler":
            self.pooled = Pooled(opened, region, size, carrying, observing)
            self.router, self.outcomes = self.pooled.router, self.pooled.outcomes
            self.reader: Reader = self.pooled.reader
        else:
            self.router = Router(opened, region=region, size=size, observing=observing)
            self.reader = Reader(self.router, carrying)
            self.outcomes = Outcomes(self.router)
        self.plain_reads: dict[tuple[str, str], Read] = {}
        self.tls: dict[NodeName, Tls] = {}
        self._placed: Placed | None = None
        self._writer: Writer | None = None

    async def start(self) -> None:
        self.router.epoch_changed(self.opened.placement.epoch)
        await self.router.start()
        ask_shards = self.pooled.newest_map if self.pooled is not None else lambda: newest_map(self.router)
        self._placed = Placed(self.opened.placement, self.router.etcd, ask_shards, self._told)
        if self.pooled is not None:
            self._writer = self.pooled.writer(self._placed)
        else:
            self._writer = Writer(self.router, self._placed, self.carrying, self.outcomes, self.reader)
        self.router.epoch_changed(self._placed.now.epoch)
        await self._placed.start()

    def _told(self, placement: Any) -> None:
        self.router.epoch_changed(placement.epoch)
        self.plain_reads.clear()

    async def warm(self, count: int) -> int:
        """Have ``count`` connections to everything that is used now; how many were opened."""
        pools = self.pooled.near() if self.pooled is not None else self.router.near()
        return sum(await asyncio.gather(*(pool.warm(count) for pool in pools)))

    @property
    def placed(self) -> Placed:
        assert self._placed is not None  # noqa: S101 - start() was called
        return self._placed

    @property
    def lookups(self) -> Lookups:
        return self.writer.lookups

    @property
    def writer(self) -> Writer:
        assert self._writer is not None  # noqa: S101 - start() was called
        return self._writer

    async def aclose(self) -> None:
        if self._placed is not None:
            await self._placed.aclose()
        await asyncio.gather(self.reader.aclose(), self.outcomes.aclose())
        await self.router.aclose()
        if self.pooled is not None:
            await self.pooled.pooler.aclose()
