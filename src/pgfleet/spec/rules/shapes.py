"""Shapes of shards: homes, voters, how many must have a commit, residency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pgfleet.spec import codes
from pgfleet.spec.region import HOME
from pgfleet.spec.rules.finding import Finding, Subject
from pgfleet.spec.shape import ShardShape

#: More nodes than this on one machine are worth a word.
MANY_NODES = 60
TESTED_MAJOR = 15


def given(subject: Subject) -> Iterator[tuple[str, ShardShape]]:
    """The shards whose nodes are ours, with a home that the file says."""
    for name, shard in subject.fleet.shards.items():
        if shard.primary is None and subject.fleet.traits.provisions and subject.fleet.home(name) is not None:
            yield name, subject.fleet.shape(name)


def homes_have_voters(subject: Subject) -> Iterator[Finding]:
    fleet = subject.fleet
    for name, shard in fleet.shards.items():
        home = fleet.home(name)
        if home is None:
            hint = f"home: {next(iter(fleet.regions), 'here')}"
            yield Finding(
                codes.HOME,
                ("shards", name),
                f"`{name}` has no home, and there are several regions",
                hint,
                shard=name,
                key=True,
            )
            continue
        if shard.primary is not None or not fleet.traits.provisions:
            continue
        shape = fleet.shape(name)
        if not shape.voters:
            message = f"`{name}` has no voter"
            yield Finding(codes.TOO_LITTLE, subject.said(name, "voters"), message, "voters: {home: 2}", shard=name)
        elif home not in shape.voters:
            hint = f"voters: {flow({home: 1} | shape.voters)}"
            message = f"the home of `{name}`, {home}, has no voter, so its primary could not be there"
            yield Finding(codes.HOME, subject.said(name, "voters"), message, hint, shard=name)


def regions_are_counted_once(subject: Subject) -> Iterator[Finding]:
    fleet = subject.fleet
    for name, shard in fleet.shards.items():
        group = fleet.groups.get(shard.group or "")
        home = fleet.home(name)
        for field in ("voters", "readers"):
            places: Mapping[str, int] | None = getattr(shard, field)
            if places is None:
                places = getattr(group, field) if group else None
            if places and home and HOME in places and home in places:
                message = f"`home` of `{name}` is {home}, which is also there under its own name"
                hint = f"{field}: {flow(_merged(places, home))}"
                yield Finding(codes.SAID_TWICE, subject.said(name, field), message, hint, shard=name)


def _merged(places: Mapping[str, int], home: str) -> dict[str, int]:
    return {HOME: places[HOME] + places[home]} | {r: n for r, n in places.items() if r not in (HOME, home)}


def sync_is_possible(subject: Subject) -> Iterator[Finding]:
    for name, shape in given(subject):
        replicas = sum(shape.voters.values()) - 1
        if shape.voters and shape.sync > replicas:
            message = f"`sync: {shape.sync}` of `{name}` would stop every write: it has {_voting(replicas)}"
            yield Finding(codes.SYNC, subject.said(name, "sync"), message, f"sync: {replicas}", shard=name)


def _voting(replicas: int) -> str:
    return f"{replicas or 'no'} voting replica{'s' if replicas != 1 else ''} beside the primary"


def residency_is_kept(subject: Subject) -> Iterator[Finding]:
    for name, shape in given(subject):
        residency = subject.fleet.shards[name].residency
        if not residency or not set(residency) <= set(subject.names["regions"]):
            continue  # none, or one that is misspelt and was told already
        allowed = ", ".join(residency)
        if shape.home not in residency:
            message = f"the home of `{name}`, {shape.home}, is outside its residency ({allowed})"
            yield Finding(codes.RESIDENCY, subject.said(name, "home"), message, f"home: {residency[0]}", shard=name)
        for field, noun, places in (("voters", "voter", shape.voters), ("readers", "reader", shape.readers)):
            if outside := [region for region in places if region not in residency and region != shape.home]:
                inside = {region: count for region, count in places.items() if region in residency}
                message = f"a {noun} of `{name}` in {', '.join(outside)} breaks its residency ({allowed})"
                # Said on the shard, because its group may serve shards without a residency.
                hint = f"{name}: {{…, {field}: {flow(_kept(inside, residency[0], noun))}}}"
                yield Finding(codes.RESIDENCY, ("shards", name, "residency"), message, hint, shard=name)


def _kept(inside: Mapping[str, int], region: str, noun: str) -> Mapping[str, int]:
    """What is left of places; of voters at least two, since one alone cannot be replaced."""
    return {region: 2} if noun == "voter" and sum(inside.values()) < 2 else inside


def nodes_are_few(subject: Subject) -> Iterator[Finding]:
    nodes = sum(len(shape.nodes) for _, shape in given(subject))
    if nodes > MANY_NODES:
        memory, disk = f"{nodes * 50 / 1024:.1f} GB", f"{nodes * 0.11:.0f} GB"
        message = f"{nodes} nodes: about {memory} of memory and {disk} of disk where all are on one machine"
        hint = "voters: {home: 2}   or fewer readers, where the machine is small"
        yield Finding(codes.MANY_NODES, ("shards",), message, hint, "warning", key=True)


def postgres_is_tested(subject: Subject) -> Iterator[Finding]:
    major = subject.fleet.postgres
    if major > TESTED_MAJOR:
        message = f"PostgreSQL {major} is accepted where its binaries are, and is not tested"
        yield Finding(codes.UNTESTED, ("postgres",), message, f"postgres: {TESTED_MAJOR}", "warning")


def flow(places: Mapping[str, int]) -> str:
    """As the file says it, for hints."""
    return "{" + ", ".join(f"{region}: {count}" for region, count in places.items()) + "}"
