"""A question bank on real servers for the adapters: shard ``stem`` with replicas, and, where it is asked for, ``arts`` on one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.engines.replicated import REGIONS, Replicated, copy, replicated
from tests.engines.scratch import Server

from pgfleet.client.observing import WatchedCall
from pgfleet.names import NodeName
from pgfleet.routing.placement import Placement, TablePlacement

#: The epoch of the map.
EPOCH = 7


#: What the shards' guards answer, by what is written: an old epoch, a key that is not this shard's.
GUARDS = """
create function refuse() returns trigger language plpgsql as
    $$ begin raise exception 'not mine' using errcode = TG_ARGV[0]; end $$;
create trigger old before insert on questions for each row when (new.stem = 'old') execute function refuse('PF001');
create trigger alien before insert on questions for each row when (new.stem = 'alien') execute function refuse('PF002');
"""


class Listener:
    """An observer that keeps what it hears."""

    def __init__(self) -> None:
        self.calls: list[WatchedCall] = []
        self.open_of: dict[tuple[str, NodeName, str], int] = {}

    def began(self, call: WatchedCall) -> None:
        pass

    def ended(self, call: WatchedCall, begun: object) -> None:
        self.calls.append(call)

    def connections(self, driver: str, node: NodeName, role: str, count: int) -> None:
        self.open_of[driver, node, role] = count


@dataclass
class Bank:
    """The servers, by the name of their node."""

    inner: Replicated

    @property
    def folder(self) -> Path:
        return self.inner.folder

    @property
    def nodes(self) -> dict[NodeName, Server]:
        shards = self.inner.shards.values()
        return {shard.node(region): server for shard in shards for region, server in shard.servers.items()}

    @property
    def primary(self) -> NodeName:
        """Of ``stem``."""
        stem = self.inner.shards["stem"]
        return stem.node(stem.primary)

    @property
    def replicas(self) -> list[NodeName]:
        return [node for node in self.nodes if node.shard == "stem" and node != self.primary]

    def psql(self, text: str, node: NodeName | None = None, database: str = "app") -> None:
        """As the superuser. :param node: None: the primary."""
        self.nodes[node or self.primary].psql(text, database)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """The replicas replay nothing meanwhile."""
        for node in self.replicas:
            self.psql("select pg_wal_replay_pause()", node)
        try:
            for node in self.replicas:
                # Asked for is not paused: it is when something comes that it would have replayed.
                self.psql("select pg_logical_emit_message(false, 'test', 'something')")
                self.psql(
                    """do $$ begin
                         while pg_get_wal_replay_pause_state() <> 'paused' loop perform pg_sleep(0.01); end loop;
                       end $$""",
                    node,
                )
            yield
        finally:
            for node in self.replicas:
                self.psql("select pg_wal_replay_resume()", node)

    @contextmanager
    def nobody_confirms(self) -> Iterator[None]:
        """COMMIT waits for a replica that does not exist."""
        self.psql("alter system set synchronous_standby_names = 'nobody'; select pg_reload_conf()")
        try:
            yield
        finally:
            self.psql("alter system reset synchronous_standby_names; select pg_reload_conf()")

    def send(self, node: NodeName, number: signal.Signals) -> None:
        """To every process of the server."""
        self.inner.shards[node.shard].signal(node.region, number)

    def fail_over(self, *, kill: bool = True) -> NodeName:
        """The primary dies, the first replica is promoted; who it is. :param kill: false: it is stopped already."""
        if kill:
            self.nodes[self.primary].stop()
        heir = self.replicas[0]
        self.inner.shards["stem"].promote(heir.region)
        return heir


@contextmanager
def bank(replicas: int = 1, *, arts: bool = False) -> Iterator[Bank]:
    """Running; gone afterwards. Its replicas are in ``us-west`` and ``eu-west``."""
    with replicated(("stem", "arts") if arts else ("stem",), REGIONS[:1]) as inner:
        stem = inner.shards["stem"]
        for region in REGIONS[1 : replicas + 1]:
            stem.servers[region] = copy(stem.servers[stem.primary], inner.folder.parent / "servers" / f"stem-{region}")
        listed = {"PMP": "stem", "AWS": "stem", "Art": "arts"}
        inner.placement = Placement({"questions": TablePlacement("subject", listed, {}, None)}, epoch=EPOCH)
        inner.write_state()
        yield Bank(inner)
