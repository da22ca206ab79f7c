"""Why a route was chosen, without sending anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from pgfleet.client.router import Router
from pgfleet.routing.choose import refused
from pgfleet.routing.hashing import Key
from pgfleet.routing.placement import Placement
from pgfleet.routing.token import Position


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a key's reads and writes would go now.

    :param read: node, None: nobody can be read. :param write: node, None: writes wait.
    :param passed_over: replicas that are not read from, each with its reason.
    """

    table: str
    key: str
    shard: str
    placed_because: str
    read: str | None
    read_because: str
    write: str | None
    write_because: str
    passed_over: Mapping[str, str]
    version: int

    def __str__(self) -> str:
        lines = [
            f"{self.table}, key {self.key!r}: shard {self.shard}, because {self.placed_because}",
            f"  reads:  {self.read or 'nobody'}, because {self.read_because}",
            f"  writes: {self.write or 'wait'}, because {self.write_because}",
            *(f"  not {node}: {why}" for node, why in self.passed_over.items()),
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """A stable shape."""
        return asdict(self)


def explained(
    router: Router,
    placement: Placement,
    table: str,
    key: Key,
    second: Key | None,
    positions: Callable[[str], tuple[Position, ...]],
) -> Explanation:
    """Where ``key``'s reads and writes would go now.

    :param positions: the caller's writes on a shard: replicas that are not known to have them are passed over.
    """
    placed = placement.shard(table, key, second)
    shard = placed.shard
    route = router.route(shard)
    why_not = {str(node.name.member): why for node in route.replicas if (why := refused(route, node))}
    after, has = positions(shard), ""
    among = None
    if after:
        lsn = router.needed(shard, after)
        known = [node.name for node in route.replicas if lsn is not None and router.holds(node.name, lsn)]
        if known:
            among = known
            why_not |= {
                n.name.member: "is not known to have this caller's last write" for n in route.replicas if n.name not in known
            }
        else:
            has = "; it is asked whether it has this caller's last write, and if not the primary answers"
    read, write = router.choose(shard, "read", among=among), router.choose(shard, "write")
    return Explanation(
        table, str(key), shard, placed.because,
        read.node.name.member if read else None, read.because + has if read else "no node can be read now",
        write.node.name.member if write else None, write.because if write else route.because,
        why_not, router.table.version,
    )  # fmt: skip
