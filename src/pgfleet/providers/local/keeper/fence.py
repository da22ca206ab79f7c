"""After the fence: who leads a shard, and revoking the lease of one that has ended (an adapter of Patroni's keys).

Every member has a connection of its own, authenticated and kept warm. One is asked, and a moment later the next as well:
one that is slow or was stopped costs that moment. (All at once was slower: three times the work on a busy host.)
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pgfleet.errors import EtcdRefused, EtcdUnreachable, PgfleetError
from pgfleet.providers.local.keeper.decide import LeadSeen
from pgfleet.runtime.state import read_addresses, read_secret
from pgfleet.topology.etcd import EtcdClient, KeyValue

T = TypeVar("T")

#: Seconds between two uses of each connection: a token ends after five minutes without, a connection after one.
KEEP_WARM = 15.0
#: Seconds that a member may take before the next is asked too; an answer takes some 5 ms.
NEXT_TOO = 0.04
#: Seconds that one question may take, at one member.
CALL_SECONDS = 1.5


def lead_from(shard: str, kvs: Iterable[KeyValue]) -> LeadSeen:
    """Read Patroni's keys of a shard: ``leader``, ``sync`` and ``members/…`` below ``/service/SHARD/``.

    ``sync`` names its leader and those who hold every commit it acknowledged (patroni/dcs, SyncState); a member's key
    lives as long as its Patroni does (and its ttl).
    """
    under = {kv.key.removeprefix(f"/service/{shard}/"): kv for kv in kvs}
    leader = under.get("leader")
    if leader is None:
        return LeadSeen(None)
    try:
        sync = json.loads(under["sync"].value) if "sync" in under else {}
        named = str(sync.get("sync_standby") or "").split(",") if sync.get("leader") == leader.value else []
    except (ValueError, AttributeError):
        named = []
    alive = {name.strip() for name in named if f"members/{name.strip()}" in under}
    return LeadSeen(leader.value, leader.lease, frozenset(alive - {leader.value}))


class Leads:
    """etcd, as far as the keeper needs it. Without an address book, certificate or password it knows nothing."""

    def __init__(self, folder: Path, clients: Iterable[EtcdClient] = ()) -> None:
        self._folder = folder
        self._clients = tuple(clients)
        self._where: tuple[str, ...] = ()
        self._late: set[asyncio.Task[Any]] = set()

    async def open(self) -> str:
        """(Re)read where etcd is and who we are there; connections that fit stay. Returns why there is none, or nothing."""
        try:
            book = read_addresses(self._folder)
            if not book.etcd:
                return "the address book lists no etcd"
            certificates = self._folder / "certificates"
            tls = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
            tls.load_cert_chain(str(certificates / "operator.crt"), str(certificates / "operator.key"))
            password = read_secret(self._folder, "etcd-keeper")
        except (PgfleetError, OSError, ValueError) as error:  # ssl.SSLError is an OSError
            return str(error)
        where = (*(member.url for member in book.etcd), password)
        if where != self._where:
            old, self._where = self._clients, where
            self._clients = tuple(
                EtcdClient([member.url], tls=tls, user="keeper", password=password, timeout=CALL_SECONDS) for member in book.etcd
            )
            task = asyncio.create_task(_close_later(old))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        return ""

    async def look(self, shard: str) -> LeadSeen | None:
        """Who leads; None when no member answered."""
        found = await self._first(lambda client: client.range(f"/service/{shard}/", prefix=True))
        return None if found is None else lead_from(shard, found.kvs)

    async def revoke(self, lead: LeadSeen) -> bool:
        """End the lease. Only for a leader that has *ended* (decide.Deed.REVOKE). True: it is gone.

        By id, not by key: a lease taken by another leader in the meantime is another lease.
        """
        gone = await self._first(lambda client: client.lease_revoke(lead.lease))
        return gone is not None  # False, "not found", is gone too: another member was quicker

    async def keep_warm(self) -> None:
        """Use every connection now and then; never returns."""
        await asyncio.sleep(1.0)  # whoever has something to ask now comes first
        while True:
            await asyncio.gather(*(client.range("/service/warm") for client in self._clients), return_exceptions=True)
            await asyncio.sleep(KEEP_WARM)

    async def aclose(self) -> None:
        clients, self._clients = self._clients, ()
        for task in self._late:
            task.cancel()
        for client in clients:
            await client.aclose()

    async def _first(self, ask: Callable[[EtcdClient], Coroutine[Any, Any, T]]) -> T | None:
        """The first answer of any member. The slower ones are let finish: to cancel one would close its connection."""
        waiting: dict[asyncio.Task[T | None], EtcdClient] = {}
        unasked = list(self._clients)
        while waiting or unasked:
            if unasked:
                client = unasked.pop(0)
                waiting[asyncio.create_task(_or_none(ask(client)))] = client
            done, _ = await asyncio.wait(waiting, timeout=NEXT_TOO if unasked else None, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                quick = waiting.pop(task)
                if (answer := task.result()) is not None:
                    self._prefer(quick)
                    self._late.update(waiting)
                    for late in waiting:
                        late.add_done_callback(self._late.discard)
                    return answer
        return None

    def _prefer(self, quick: EtcdClient) -> None:
        if quick in self._clients:  # else the address book was read again meanwhile
            self._clients = (quick, *(client for client in self._clients if client is not quick))


async def _or_none(asked: Coroutine[Any, Any, T]) -> T | None:
    try:
        return await asked
    except (EtcdUnreachable, EtcdRefused):
        return None


async def _close_later(clients: Iterable[EtcdClient]) -> None:
    """Once nobody can be asking through them any more."""
    await asyncio.sleep(2 * CALL_SECONDS)
    for client in clients:
        await client.aclose()
