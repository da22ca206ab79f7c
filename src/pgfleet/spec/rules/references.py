"""Names that refer to something: regions, groups, shards, tables, providers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pgfleet.spec import codes
from pgfleet.spec.document import Path
from pgfleet.spec.nearest import nearest
from pgfleet.spec.providers import DEFAULT, PROVIDERS
from pgfleet.spec.region import HOME
from pgfleet.spec.rules.finding import Finding, Subject
from pgfleet.spec.shard import Group, Shard
from pgfleet.spec.table import Elsewhere

_OF_POSTGRES = ("postgres", "template0", "template1")


def regions_are_declared(subject: Subject) -> Iterator[Finding]:
    fleet = subject.fleet
    shapes: Mapping[str, Mapping[str, Group]] = {"groups": fleet.groups, "shards": fleet.shards}
    for kind, named in shapes.items():
        for name, shape in named.items():
            path: Path = (kind, name)
            if shape.home is not None:
                yield from _region(subject, shape.home, (*path, "home"))
            for field, places in (("voters", shape.voters or {}), ("readers", shape.readers or {})):
                for region in places:
                    if region != HOME:
                        yield from _region(subject, region, (*path, field, region), key=True)
            if isinstance(shape, Shard):
                for region in shape.replicas if isinstance(shape.replicas, dict) else ():
                    if region != HOME:
                        yield from _region(subject, region, (*path, "replicas", region), key=True)
                for at, region in enumerate(shape.residency):
                    yield from _region(subject, region, (*path, "residency", at))


def _region(subject: Subject, region: str, path: Path, *, key: bool = False) -> Iterator[Finding]:
    known = subject.names["regions"]
    if region not in known:
        yield _unknown(codes.UNKNOWN_REGION, "region", region, known, path, key=key)


def _unknown(
    code: str, noun: str, name: str, known: tuple[str, ...], path: Path, *, key: bool = False, declare: str = "{}"
) -> Finding:
    hint = nearest(name, known) or (f"declared: {', '.join(known)}" if known else f"{noun}s: {{{name}: {declare}}}")
    return Finding(code, path, f"there is no {noun} `{name}`", hint, key=key)


def groups_are_declared(subject: Subject) -> Iterator[Finding]:
    for name, shard in subject.fleet.shards.items():
        if shard.group is not None and shard.group not in subject.names["groups"]:
            yield _unknown(codes.UNKNOWN_GROUP, "group", shard.group, subject.names["groups"], ("shards", name, "group"))


def shards_are_declared(subject: Subject) -> Iterator[Finding]:
    known = subject.names["shards"]
    for path, shard, key in _mentions(subject):
        if shard not in known:
            yield _unknown(codes.UNKNOWN_SHARD, "shard", shard, known, path, key=key)


def _mentions(subject: Subject) -> Iterator[tuple[Path, str, bool]]:
    """Every mention of a shard in the tables: where, which, and whether it is a key."""
    for name, table in subject.fleet.tables.items():
        for shard, items in table.place.items():
            yield ("tables", name, "place", shard), shard, True
            for at, item in enumerate(items):
                for key, spread in {} if isinstance(item, str) else item.items():
                    for index, over in enumerate(spread.over):
                        yield ("tables", name, "place", shard, at, key, "over", index), over, False
        if isinstance(table.elsewhere, Elsewhere):
            for index, over in enumerate(table.elsewhere.over):
                yield ("tables", name, "elsewhere", "over", index), over, False
        for lookup in table.lookups:
            for index, over in enumerate(table.lookup(lookup).over):
                yield ("tables", name, "lookups", lookup, "over", index), over, False


def tables_follow_tables(subject: Subject) -> Iterator[Finding]:
    known = subject.names["tables"]
    for name, table in subject.fleet.tables.items():
        if table.with_ is None:
            continue
        path: Path = ("tables", name, "with")
        if table.with_ not in known:
            others = tuple(other for other in known if other != name)
            yield _unknown(codes.UNKNOWN_TABLE, "table", table.with_, others, path, declare="{key: id}")
        elif name in (chain := _chain(subject, name)):
            message = f"`{name}` follows itself: {' → '.join([name, *chain])}"
            yield Finding(codes.WITH, path, message, "key: id   instead of `with`, on one of them")


def _chain(subject: Subject, name: str) -> list[str]:
    """The tables that ``name`` follows, up to one that has its own placement or that was met before."""
    tables = subject.fleet.tables
    chain: list[str] = []
    while name in tables and (following := tables[name].with_) is not None:
        if following in chain:
            break
        chain.append(following)
        name = following
    return chain


def names_are_free(subject: Subject) -> Iterator[Finding]:
    fleet = subject.fleet
    if HOME in fleet.regions:
        message = f"`{HOME}` stands for a shard's own home in voters and readers, so no region can have this name"
        yield Finding(codes.RESERVED_NAME, ("regions", HOME), message, "here", key=True)
    if fleet.database in _OF_POSTGRES:
        yield Finding(codes.RESERVED_NAME, ("database",), f"the database `{fleet.database}` is PostgreSQL's own", "app")


def providers_are_there(subject: Subject) -> Iterator[Finding]:
    for name, region in subject.fleet.regions.items():
        path: Path = ("regions", name, "provider")
        if region.provider not in PROVIDERS:
            hint = nearest(region.provider, tuple(PROVIDERS)) or DEFAULT
            message = f"there is no provider `{region.provider}`; this version knows {', '.join(PROVIDERS)}"
            yield Finding(codes.PROVIDER, path, message, f"provider: {hint}")


def something_is_declared(subject: Subject) -> Iterator[Finding]:
    if not subject.names["regions"]:
        yield Finding(codes.TOO_LITTLE, ("regions",), "no region is declared", "regions: {here: {provider: local}}", key=True)
    if not subject.names["shards"]:
        yield Finding(codes.TOO_LITTLE, ("shards",), "no shard is declared", "shards: {main: {voters: {home: 2}}}", key=True)
