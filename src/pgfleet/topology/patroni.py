"""Patroni's REST, read only: what it says of its shard when etcd says nothing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import replace

import httpx

from pgfleet.facts.addresses import NodeAddress
from pgfleet.facts.topology import ShardTopology, read_cluster


class PatroniRest:
    """:param tls: verifies the fleet's servers; the safe endpoints need no client certificate.
    :param seconds: for one node's answer."""

    def __init__(self, tls: ssl.SSLContext | None, *, seconds: float = 1.0) -> None:
        self._http = httpx.AsyncClient(verify=tls if tls is not None else False, trust_env=False, timeout=seconds)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def cluster(self, shard: str, nodes: Iterable[NodeAddress]) -> ShardTopology | None:
        """The shard as the first Patroni that answers describes it; None: none does. Its leader is *its* belief."""
        asked = [asyncio.create_task(self._ask(shard, node)) for node in nodes]
        try:
            for answer in asyncio.as_completed(asked):
                if (seen := await answer) is not None:
                    return seen
            return None
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _ask(self, shard: str, node: NodeAddress) -> ShardTopology | None:
        try:
            answer = await self._http.get(f"{node.rest_url}/cluster")
            seen = read_cluster(shard, answer.json())
        except (httpx.HTTPError, ValueError):
            return None
        return replace(seen, switching=False) if seen.members else None
