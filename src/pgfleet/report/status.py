"""Status: the fleet as it is now, in a shape that programs may rely on (docs/reference/json.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.facts.fleet import FleetSeen, ShardSeen, UnitSeen
from pgfleet.facts.replication import NodeWord, lag_bytes, lag_seconds
from pgfleet.facts.topology import MemberSeen, ShardTopology
from pgfleet.names import NodeName
from pgfleet.spec.shape import ShardShape

SILENT = NodeWord(error="not asked")


def status_document(
    fleet: str, at: str, shapes: Sequence[ShardShape], seen: FleetSeen, words: Mapping[NodeName, NodeWord]
) -> dict[str, object]:
    """The document of ``status --json``.

    :param at: UTC, ISO 8601. :param words: by node; a node that is missing was not asked.
    """
    book = seen.addresses
    assert book is not None  # noqa: S101 - a fleet that was never applied has no status
    shards = [_shard(shape, book, seen, words) for shape in shapes]
    problems = _problems(seen) if book.etcd else []
    problems += [f"{shard['name']}: {problem}" for shard in shards for problem in _texts(shard["problems"])]
    return {
        "fleet": fleet,
        "at": at,
        "healthy": not problems,
        "keeper": seen.keeper if book.etcd else None,
        "etcd": {
            "answers": seen.etcd if book.etcd else None,
            "members": [_process(u) for n, u in seen.units.items() if n.startswith("etcd/")],
        },
        "shards": shards,
        "poolers": [
            _process(unit) | {"region": name.partition("/")[2]}
            for name, unit in seen.units.items()
            if name.startswith(("pgbouncer/", "haproxy/"))
        ],
        "problems": problems,
    }


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _process(unit: UnitSeen) -> dict[str, object]:
    return {"name": unit.name, "state": unit.state, "pid": unit.pid, "restarts": unit.restarts}


def _problems(seen: FleetSeen) -> list[str]:
    problems = []
    if not seen.keeper:
        problems.append("no keeper answers: nothing that dies is started again (pgfleet apply)")
    if not seen.etcd:
        problems.append("etcd does not answer: nobody can be elected")
    for name, unit in seen.units.items():
        if seen.keeper and not name.startswith("node/") and unit.state != "running":
            problems.append(f"{name} is {unit.state}{f' ({unit.problem})' if unit.problem else ''}")
    return problems


def _shard(shape: ShardShape, book: AddressBook, seen: FleetSeen, words: Mapping[NodeName, NodeWord]) -> dict[str, object]:
    there = seen.shards.get(shape.name)
    topology = there.topology if there is not None else ShardTopology(shape.name)
    primary = _primary(topology, words, [node.name for node in book.of_shard(shape.name)])
    word = words.get(primary, SILENT) if primary is not None else SILENT
    nodes = [_node(node, seen, topology, words, primary, word) for node in book.of_shard(shape.name)]
    replicas = [node for node in nodes if node["role"] != "primary"]
    said = {node.name: words.get(node.name, SILENT) for node in book.of_shard(shape.name)}
    given = not book.etcd  # nobody but the nodes themselves says who they are
    claims = [name.member for name, one in said.items() if given and not one.error and not one.recovering]
    silent = {name.member: one.error for name, one in said.items() if given and one.error}
    return {
        "name": shape.name,
        "home": shape.home,
        "sync": shape.sync,
        "primary": next((node for node in nodes if node["role"] == "primary"), None),
        "replicas": replicas,
        "endpoints": _endpoints(shape.name, book) if book.poolers else _servers(shape.name, book, nodes),
        "problems": _shard_problems(shape, topology, primary, nodes, there, claims, silent),
    }


def _primary(topology: ShardTopology, words: Mapping[NodeName, NodeWord], nodes: Sequence[NodeName]) -> NodeName | None:
    """The lock's holder; without etcd, the only node that says so itself."""
    if topology.primary is not None:
        return topology.primary
    said = [name for name in nodes if (word := words.get(name)) is not None and not word.error and not word.recovering]
    return said[0] if len(said) == 1 else None


def _node(
    node: NodeAddress, seen: FleetSeen, topology: ShardTopology, words: Mapping[NodeName, NodeWord],
    primary: NodeName | None, primary_word: NodeWord,
) -> dict[str, object]:  # fmt: skip
    unit = seen.units.get(f"node/{node.name}")
    member = topology.members.get(node.name)
    word = words.get(node.name, SILENT)
    is_primary = node.name == primary
    return {
        "node": node.name.member,
        "region": node.name.region,
        "role": "primary" if is_primary else "replica",
        "kind": node.kind,
        "sync": node.name in topology.sync.voters and not is_primary,
        "state": _state(member, word, unit, given=not node.rest_port),
        "timeline": word.timeline if word.timeline is not None else (member.timeline if member else None),
        "lag_bytes": None if is_primary else lag_bytes(primary_word, word),
        "lag_seconds": None if is_primary else lag_seconds(primary_word, word),
        "host": node.host,
        "port": node.port,
        "address": f"{node.host}:{node.port}",
        "pid": unit.database_pid if unit is not None else None,
        "patroni_pid": unit.pid if unit is not None else None,
        "restarts": unit.restarts if unit is not None else 0,
    }


def _state(member: MemberSeen | None, word: NodeWord, unit: UnitSeen | None, *, given: bool) -> str:
    """What Patroni said of it last. Where etcd tells nothing: the node's own word, or what became of its process."""
    if member is None and not word.error:
        return ("streaming" if word.receiving else "in archive recovery") if word.recovering else "running"
    if member is None and unit is None and given:
        return "silent"
    state = member.state if member is not None else (unit.state if unit is not None else "absent")
    return "silent" if word.error and state in ("running", "streaming") else state


def _endpoints(shard: str, book: AddressBook) -> dict[str, dict[str, str]]:
    return {
        pooler.region: {
            "read_write": dsn(pooler.host, pooler.port, f"{shard}_rw"),
            "read_only": dsn(pooler.host, pooler.port, f"{shard}_ro"),
        }
        for pooler in book.poolers
    }


def _servers(shard: str, book: AddressBook, nodes: Sequence[Mapping[str, object]]) -> dict[str, dict[str, str]]:
    """Without poolers: per region the primary, wherever it is, and a replica that answers, there if there is one."""
    primary = next((node for node in nodes if node["role"] == "primary"), None)
    found: dict[str, dict[str, str]] = {}
    for region in dict.fromkeys(str(node["region"]) for node in nodes):
        readable = [n for n in nodes if n["role"] == "replica" and n["state"] == "streaming"]
        readable.sort(key=lambda node: node["region"] != region)
        ways = {"read_write": primary, "read_only": readable[0] if readable else primary}
        places = {way: book.node(NodeName.parse(f"{shard}/{node['node']}")) for way, node in ways.items() if node is not None}
        found[region] = {
            way: dsn(node.host, node.port, book.database_of(node), node.user or "pgfleet_app")
            for way, node in places.items() if node is not None
        }  # fmt: skip
    return found


def dsn(host: str, port: int, database: str, role: str = "pgfleet_app") -> str:
    """A connection URI without a password (PostgreSQL docs, 34.1.1.2)."""
    place = f"[{host}]" if ":" in host else quote(host, safe="")
    return f"postgresql://{quote(role, safe='')}@{place}:{port}/{quote(database, safe='')}"


def _shard_problems(
    shape: ShardShape, topology: ShardTopology, primary: NodeName | None, nodes: Sequence[Mapping[str, object]],
    seen: ShardSeen | None, claims: Sequence[str], silent: Mapping[str, str],
) -> list[str]:  # fmt: skip
    problems = []
    if len(claims) > 1:
        problems.append(f"{' and '.join(claims)} both take writes: stop the one on the lower timeline")
    if primary is None:
        problems.append("no primary: writes are refused")
    elif primary.region != shape.home:
        problems.append(f"its primary is in {primary.region}, away from home {shape.home}")
    for node in nodes:
        why = f": {silent[str(node['node'])]}" if node["node"] in silent else ""
        if node["role"] == "replica" and node["state"] != "streaming" and node["node"] not in claims:
            problems.append(f"{node['node']} is {node['state']}{why}")
        elif node["role"] == "primary" and node["state"] != "running":
            problems.append(f"primary {node['node']} is {node['state']}{why}")
    if shape.sync and seen is not None and len(topology.sync.voters) < shape.sync:
        problems.append(f"commits reach {len(topology.sync.voters)} replicas, {shape.sync} are promised")
    held = seen.placement if seen is not None else None
    if held is not None and len(held.maps) > 1:
        problems.append("a change of the map of keys was not finished: some keys have no owner (pgfleet apply)")
    if held is not None and held.unguarded:
        problems.append(f"{', '.join(held.unguarded)} would take rows that are not its own (pgfleet apply)")
    return problems
