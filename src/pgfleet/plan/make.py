"""The plan: what the file wants and what was seen, compared. Nothing here acts, and nothing remembers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from pgfleet.facts.addresses import AddressBook
from pgfleet.facts.fleet import FleetSeen, ShardSeen, UnitSeen
from pgfleet.plan.plan import Plan
from pgfleet.plan.steps import Act, Step
from pgfleet.plan.wanted import Wanted, WantedShard, WantedUnit

#: A process in one of these needs no start. One that its keeper started in vain ("backoff") does: its files may be at fault.
ALIVE = frozenset({"running", "starting"})


def make_plan(wanted: Wanted, seen: FleetSeen) -> Plan:
    """The steps that make ``seen`` be ``wanted``; none when it is."""
    steps = [
        *_foundation(wanted, seen),
        *(step for unit in wanted.units.values() for step in _unit(unit, seen)),
        *(step for shard in wanted.shards.values() if known(seen) for step in _shard(wanted, shard, seen.shards.get(shard.name))),
        *_removals(wanted, seen),
        *(_placement(wanted, seen) if known(seen) else ()),
    ]
    order = list(Act)
    notes = wanted.notes if known(seen) else (*wanted.notes, "etcd does not answer: what is recorded in it was not compared")
    return Plan(wanted.fleet, tuple(sorted(steps, key=lambda s: order.index(s.act))), notes)


def known(seen: FleetSeen) -> bool:
    """Whether absence means that there is none. While the etcd of a fleet is silent, nobody knows what is recorded in it: what
    depends on that is planned when it answers (apply looks again)."""
    return seen.etcd or not any(_kind(name) == "etcd" for name in seen.units)


_KEEP_ADDRESSES = "none: running processes keep their addresses"
_KEEP_SERVERS = "none: clients that are open keep to the servers that they know"


def _foundation(wanted: Wanted, seen: FleetSeen) -> Iterator[Step]:
    if seen.addresses is None:
        yield Step(
            Act.PREPARE, wanted.fleet, f"{wanted.because} declares it; no fleet of this name was applied here",
            risk="none: nothing of it runs", undo="pgfleet destroy",
        )  # fmt: skip
    elif seen.addresses != wanted.addresses:
        yield Step(
            Act.PREPARE, wanted.fleet, f"{wanted.because} and the address book {_differ(seen.addresses, wanted.addresses)}",
            risk=_KEEP_ADDRESSES if wanted.provisions else _KEEP_SERVERS, undo="apply the file as it was",
        )  # fmt: skip
    elif changed := [name for name, secret in wanted.secrets.items() if seen.secrets.get(name) != secret]:
        yield Step(
            Act.PREPARE, wanted.fleet, f"{', '.join(changed)}: the secret that is kept is another than the one that is given",
            risk="none: it is the one that the server knows (apply logs in with it first)", undo="apply with the one before",
        )  # fmt: skip
    if not wanted.provisions:
        return
    if not seen.keeper:
        yield _start_keeper(wanted, seen)
    if not seen.authenticated and known(seen):
        yield Step(
            Act.SECURE_ETCD, wanted.fleet, "etcd answers without a user; who writes there commands PostgreSQL's user",
            risk="none", undo="none: it stays on",
        )  # fmt: skip


def _differ(seen: AddressBook, wanted: AddressBook) -> str:
    if replace(seen, through=wanted.through, per_process=wanted.per_process) != wanted:
        return "name different places"
    if seen.through != wanted.through:
        return f"differ: applications are to connect through {wanted.through}, and are told {seen.through}"
    return f"differ: a process of an application is to open {wanted.per_process} connections, and is told {seen.per_process}"


def _start_keeper(wanted: Wanted, seen: FleetSeen) -> Step:
    known = len(seen.units)
    because = f"no keeper answers; {known} processes are its to run" if known else "a fleet's processes need their keeper"
    return Step(Act.START_KEEPER, wanted.fleet, because, risk="none: what runs is adopted as it is", undo="pgfleet destroy")


def _kind(unit: str) -> str:
    return unit.partition("/")[0]


def _shard_of(unit: str) -> str:
    parts = unit.split("/")
    return parts[1] if parts[0] == "node" else ""


def _subject(unit: str) -> str:
    return unit.partition("/")[2] if _kind(unit) == "node" else unit


def _unit(unit: WantedUnit, seen: FleetSeen) -> Iterator[Step]:
    there = seen.units.get(unit.name)
    shard = _shard_of(unit.name)
    if there is None or there.state == "leftover":
        yield _create(unit, shard, first=not any(_shard_of(name) == shard for name in seen.units))
    elif there.digest != unit.digest:
        yield Step(
            Act.CHANGE, _subject(unit.name), f"{unit.because}: its configuration on disk is another",
            risk=_CHANGE_RISK[_kind(unit.name)], undo="apply the file as it was", shard=shard,
        )  # fmt: skip
    elif seen.keeper and there.state not in ALIVE:
        fallen = _FALLEN.get(there.state, f"it is {there.state}")
        yield Step(
            Act.START, _subject(unit.name), f"{fallen}: {there.problem}" if there.problem else fallen,
            risk="none", undo="none needed", shard=shard,
        )  # fmt: skip


_FALLEN = {"backoff": "it ended, and its keeper waits before the next start", "stopped": "its keeper stopped it"}

_CHANGE_RISK = {
    "etcd": "its member restarts; two of three stay",
    "node": "Patroni reads its file again; connections stay",
    "pgbouncer": "PgBouncer reads its file again; connections stay",
    "haproxy": "HAProxy starts a new worker; connections of the old one stay until they end",
}


def _create(unit: WantedUnit, shard: str, *, first: bool) -> Step:
    """:param first: nothing of its shard is here yet."""
    match _kind(unit.name):
        case "etcd":
            act, risk, undo = Act.CREATE_ETCD, "none: it is new", "pgfleet destroy"
        case "node":
            act, undo = Act.CREATE_NODE, f"take it out of the file and apply ({unit.because})"
            risk = "none: its shard is new" if first else "its copy is read from the primary: some load while it is made"
        case _:
            act, risk, undo = Act.CREATE_POOLER, "none: nobody is connected to it", "take the region out of the file"
    return Step(act, _subject(unit.name), f"{unit.because}: no such process", risk=risk, undo=undo, shard=shard)


_OWN_AGAIN = "none: roles and grants of pgfleet's own are made again"
_ONLY_OURS = "none: nothing outside that schema is touched"


def _shard(wanted: Wanted, shard: WantedShard, seen: ShardSeen | None) -> Iterator[Step]:
    if seen is None or seen.prepared != shard.prepared:
        if wanted.provisions:
            said, risk, undo = "its roles, database and schema are not as they shall be", _OWN_AGAIN, "none needed"
        else:
            said, risk, undo = "its schema pgfleet is not as it shall be", _ONLY_OURS, "pgfleet destroy --schema"
        yield Step(
            Act.PREPARE_SHARD, shard.name, f"{shard.because}: {said}", risk=risk, undo=undo, shard=shard.name,
        )  # fmt: skip
    if seen is not None and seen.configuration is not None:
        changes = differences(shard.configuration, seen.configuration)
        if changes:
            said = "; ".join(f"{name}: {was} → {now}" for name, (was, now) in changes.items())
            yield Step(
                Act.CHANGE_SETTINGS, shard.name, f"{shard.because}: {said}",
                risk="a setting that needs a restart restarts the replicas first, then the primary after a switchover",
                undo="apply the file as it was", shard=shard.name,
            )  # fmt: skip


def differences(wanted: Mapping[str, object], seen: Mapping[str, object], at: str = "") -> dict[str, tuple[str, str]]:
    """Dotted name -> (seen, wanted) for all that ``wanted`` says otherwise; what only ``seen`` has below ``parameters``
    counts too (a setting taken out of the file)."""
    found: dict[str, tuple[str, str]] = {}
    for name, value in wanted.items():
        there = seen.get(name)
        if isinstance(value, Mapping):
            found |= differences(value, there if isinstance(there, Mapping) else {}, f"{at}{name}.")
        elif str(there) != str(value):
            found[f"{at}{name}"] = ("not set" if there is None else str(there), str(value))
    if at.endswith("parameters."):
        found |= {f"{at}{name}": (str(seen[name]), "not set") for name in seen if name not in wanted}
    return found


def _removals(wanted: Wanted, seen: FleetSeen) -> Iterator[Step]:
    gone = [unit for name, unit in seen.units.items() if name not in wanted.units]
    shards = {_shard_of(u.name) for u in gone if _kind(u.name) == "node"}
    for shard in sorted(shards - set(wanted.shards)):
        nodes = sum(1 for u in gone if _shard_of(u.name) == shard)
        yield Step(
            Act.REMOVE_SHARD, shard, f"{wanted.because} declares no such shard; {nodes} nodes of it are here",
            risk="every row of this shard is deleted with its nodes", undo="none: restore a backup", shard=shard,
            destroys=True,
        )  # fmt: skip
    for unit in gone:
        yield from _removal(wanted, seen, unit)


def _removal(wanted: Wanted, seen: FleetSeen, unit: UnitSeen) -> Iterator[Step]:
    shard = _shard_of(unit.name)
    if _kind(unit.name) == "node":
        if shard not in wanted.shards:
            return
        there = seen.shards.get(shard)
        primary = there is not None and _subject(unit.name) == str(there.topology.primary)
        yield Step(
            Act.REMOVE_NODE, _subject(unit.name), f"{wanted.shards[shard].because} declares no such node",
            risk="its copy of the data is deleted" + ("; it is the primary: a switchover comes first" if primary else ""),
            undo="declare it again: a new copy is made", shard=shard, destroys=True,
        )  # fmt: skip
    elif _kind(unit.name) != "etcd":
        yield Step(
            Act.REMOVE_POOLER, unit.name, f"{wanted.because} declares no such region",
            risk="its clients are disconnected", undo="declare the region again",
        )  # fmt: skip


def _placement(wanted: Wanted, seen: FleetSeen) -> Iterator[Step]:
    behind = [name for name in wanted.shards if not _holds(wanted, seen, name)]
    if seen.placement != wanted.placement or behind:
        because = "the file places keys otherwise"
        if seen.placement is None:
            because = "the map of keys was never recorded"
        elif seen.placement == wanted.placement:
            because = f"{', '.join(behind)} {'has' if len(behind) == 1 else 'have'} not the map that was recorded"
        yield Step(
            Act.RECORD_PLACEMENT, wanted.fleet, f"{wanted.because}: {because}",
            risk="writes wait for a moment where keys come or go; no row that exists is placed elsewhere (apply looks before)",
            undo="apply the file as it was",
        )  # fmt: skip
        return
    for name, shard in wanted.shards.items():
        there = seen.shards[name].placement
        if there is not None and there.unguarded:
            yield Step(
                Act.GUARD_TABLES, name, f"{shard.because}: {', '.join(there.unguarded)} would take rows that are not its own",
                risk="a table's writers are waited for, half a second at a time", undo="none needed", shard=name,
            )  # fmt: skip


def _holds(wanted: Wanted, seen: FleetSeen, name: str) -> bool:
    """Whether the shard has the wanted map, wholly."""
    there = seen.shards[name].placement if name in seen.shards else None
    return there is not None and (there.maps, there.functions) == ((wanted.placement,), wanted.shards[name].functions)
