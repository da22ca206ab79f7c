"""A world of values in which a plan's steps are performed: what apply does to a fleet, as its next look would see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tests.golden.fleets import provider

from pgfleet.facts.fleet import FleetSeen, PlacementSeen, ShardSeen, UnitSeen
from pgfleet.facts.topology import MemberSeen, ShardTopology, SyncSeen
from pgfleet.names import NodeName
from pgfleet.plan.make import ALIVE, make_plan
from pgfleet.plan.plan import Plan
from pgfleet.plan.steps import Act, Step
from pgfleet.plan.wanted import Wanted
from pgfleet.providers.local.settings import patch_for

#: A fleet of this name was never applied.
NOTHING = FleetSeen()


def wanted(text: str, folder: Path, seen: FleetSeen = NOTHING) -> Wanted:
    """What the file ``text`` wants of what was seen."""
    return provider(text, folder).wanted(seen)


def whole(wanted: Wanted) -> FleetSeen:
    """A fleet that is exactly as ``wanted``: nothing, and then everything done to it."""
    seen = NOTHING
    for _ in range(3):
        seen = perform(make_plan(wanted, seen), wanted, seen)
    return seen


def perform(plan: Plan, wanted: Wanted, seen: FleetSeen) -> FleetSeen:
    """``seen`` after every step of ``plan``."""
    for step in plan.steps:
        seen = performed(step, wanted, seen)
    return seen


def performed(step: Step, wanted: Wanted, seen: FleetSeen) -> FleetSeen:
    match step.act:
        case Act.PREPARE:
            return replace(seen, addresses=wanted.addresses)
        case Act.START_KEEPER:
            alive = {name: _running(unit) for name, unit in seen.units.items() if unit.state != "leftover"}
            return _looked(replace(seen, keeper=True, units={**seen.units, **alive}))
        case Act.CREATE_ETCD | Act.CREATE_POOLER:
            return _looked(_put(seen, wanted, step.subject))
        case Act.CREATE_NODE:
            made = _put(seen, wanted, f"node/{step.subject}")
            shard = seen.shards.get(step.shard) or ShardSeen(ShardTopology(step.shard))
            topology = shard.topology
            if topology.primary is None:
                topology = replace(topology, primary=step.node)
            configuration = wanted.shards[step.shard].configuration if shard.configuration is None else shard.configuration
            return _with_shard(made, replace(shard, topology=topology, configuration=configuration))
        case Act.START | Act.CHANGE:
            name = step.subject if step.subject in seen.units else f"node/{step.subject}"
            return _looked(_put(seen, wanted, name))
        case Act.SECURE_ETCD:
            assert seen.etcd, "who is not there cannot be secured"
            return replace(seen, authenticated=True)
        case Act.PREPARE_SHARD:
            shard = seen.shards[step.shard]
            assert shard.topology.primary is not None, "a shard without a primary cannot be prepared"
            return _with_shard(seen, replace(shard, prepared=wanted.shards[step.shard].prepared))
        case Act.CHANGE_SETTINGS:
            shard = seen.shards[step.shard]
            assert shard.configuration is not None
            patch = patch_for(wanted.shards[step.shard].configuration, shard.configuration)
            return _with_shard(seen, replace(shard, configuration=patched(shard.configuration, patch)))
        case Act.REMOVE_NODE:
            left = _without(seen, f"node/{step.subject}")
            shard = seen.shards[step.shard]
            if shard.topology.primary != step.node:
                return left
            stay = [NodeName.parse(name.partition("/")[2]) for name in left.units if name.startswith(f"node/{step.shard}/")]
            return _with_shard(left, replace(shard, topology=replace(shard.topology, primary=stay[0])))
        case Act.REMOVE_SHARD:
            for name in [name for name in seen.units if name.startswith(f"node/{step.shard}/")]:
                seen = _without(seen, name)
            return replace(seen, shards={name: shard for name, shard in seen.shards.items() if name != step.shard})
        case Act.REMOVE_POOLER:
            return _without(seen, step.subject)
        case Act.RECORD_PLACEMENT:
            for name, shard in seen.shards.items():
                if name in wanted.shards:
                    held = PlacementSeen((wanted.placement,), wanted.shards[name].functions)
                    seen = _with_shard(seen, replace(shard, placement=held))
            return replace(seen, placement=wanted.placement)
        case Act.GUARD_TABLES:
            shard = seen.shards[step.shard]
            assert shard.placement is not None, "a shard without a map cannot guard its tables"
            return _with_shard(seen, replace(shard, placement=replace(shard.placement, unguarded=())))


def patched(document: Mapping[str, object], patch: Mapping[str, object]) -> dict[str, object]:
    """Patroni's ``PATCH /config``: mappings are merged, None takes a key out (``patch_config`` in its utils.py)."""
    result = dict(document)
    for name, value in patch.items():
        there = result.get(name)
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            result[name] = patched(there if isinstance(there, Mapping) else {}, value)
        else:
            result[name] = value
    return result


def look(truth: FleetSeen) -> FleetSeen:
    """What can be seen of it: without a keeper nobody knows what runs, without etcd nobody knows what is recorded there."""
    seen = truth
    if not truth.keeper:
        unknown = {
            name: unit if unit.state == "leftover" else replace(unit, state="absent") for name, unit in truth.units.items()
        }
        seen = replace(seen, units=unknown)
    if not truth.etcd:
        seen = replace(seen, authenticated=False, shards={}, placement=None)
    return seen


def with_unit(seen: FleetSeen, name: str, **changed: object) -> FleetSeen:
    return replace(seen, units={**seen.units, name: replace(seen.units[name], **changed)})  # type: ignore[arg-type]


def streaming(shard: str, members: Mapping[NodeName, str], *, primary: NodeName, voters: tuple[NodeName, ...]) -> ShardTopology:
    """A shard whose members are as said (their Patroni's words)."""
    seen = {
        name: MemberSeen(name, "primary" if name == primary else "replica", state, 1000, 1) for name, state in members.items()
    }
    return ShardTopology(shard, primary, seen, SyncSeen(primary, voters, 1), 1000)


def _running(unit: UnitSeen) -> UnitSeen:
    return replace(unit, state="running", problem="")


def _put(seen: FleetSeen, wanted: Wanted, name: str) -> FleetSeen:
    state = "running" if seen.keeper else "unknown"
    return replace(seen, units={**seen.units, name: UnitSeen(name, wanted.units[name].digest, state)})


def _without(seen: FleetSeen, name: str) -> FleetSeen:
    return replace(seen, units={there: unit for there, unit in seen.units.items() if there != name})


def _with_shard(seen: FleetSeen, shard: ShardSeen) -> FleetSeen:
    return replace(seen, shards={**seen.shards, shard.topology.shard: shard})


def _looked(seen: FleetSeen) -> FleetSeen:
    """etcd answers while most of its members run."""
    members = [unit for name, unit in seen.units.items() if name.startswith("etcd/")]
    alive = sum(1 for unit in members if seen.keeper and unit.state in ALIVE)
    return replace(seen, etcd=bool(members) and 2 * alive > len(members))
