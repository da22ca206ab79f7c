"""Placement: every key in one place, every table with a place, every shard with something to hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pgfleet.spec import codes
from pgfleet.spec.document import Path
from pgfleet.spec.rules.finding import Finding, Subject
from pgfleet.spec.table import BUCKETS, Elsewhere, Spread, Table, period_days


def keys_are_placed_once(subject: Subject) -> Iterator[Finding]:
    for name, table in subject.fleet.tables.items():
        first: dict[str, tuple[str, Path]] = {}
        for path, key, shard, _ in _listed(name, table):
            if key not in first:
                first[key] = shard, path
                continue
            other, where = first[key]
            line = subject.positions.of(*where).line
            message = f"`{key}` is placed on {shard} and, in line {line}, on {other}"
            if other == shard:
                message = f"`{key}` is listed twice for {shard}; first in line {line}"
            yield Finding(codes.PLACED_TWICE, path, message, f"to spread one key: {{{key}: {{hash: id, over: [{other}, …]}}}}")


def _listed(name: str, table: Table) -> Iterator[tuple[Path, str, str, Spread | None]]:
    for shard, items in table.place.items():
        for at, item in enumerate(items):
            path: Path = ("tables", name, "place", shard, at)
            if isinstance(item, str):
                yield path, item, shard, None
            else:
                for key, spread in item.items():
                    yield (*path, key), key, shard, spread


def tables_have_a_place(subject: Subject) -> Iterator[Finding]:
    fleet = subject.fleet
    shards = list(fleet.shards)
    for name, table in fleet.tables.items():
        path: Path = ("tables", name)
        if table.with_ is not None:
            for field, said in (("place", bool(table.place)), ("elsewhere", table.elsewhere is not None)):
                if said:
                    message = f"`{name}` lives with `{table.with_}`, so it has no `{field}` of its own"
                    yield Finding(codes.WITH, (*path, field), message, "remove it", key=True)
            continue
        if table.key is None:
            yield Finding(codes.MISSING_KEY, path, f"table `{name}` needs the key `key`, or `with`", "key: id", key=True)
        if table.place or isinstance(table.elsewhere, Elsewhere):
            continue
        if table.elsewhere is not None or len(shards) > 1:
            message = f"no shard holds `{name}`"
            hint = f"elsewhere: {{hash: {BUCKETS}, over: [{', '.join(shards)}]}}"
            yield Finding(codes.NO_PLACE, path, message, hint, key=True)


def spreads_spread(subject: Subject) -> Iterator[Finding]:
    for name, table in subject.fleet.tables.items():
        if isinstance(table.elsewhere, Elsewhere):
            path: Path = ("tables", name, "elsewhere")
            yield from _over(path, table.elsewhere.over, table.elsewhere.hash, list(subject.fleet.shards), least=1)
        for where, key, shard, spread in _listed(name, table):
            if spread is None:
                continue
            others = [shard, *(other for other in subject.fleet.shards if other != shard)]
            yield from _over(where, spread.over, spread.buckets, others, least=2 if shard in spread.over else 1)
            if shard not in spread.over:
                message = f"`{key}` is listed under {shard}, which is not among the shards it is spread over"
                hint = f"over: [{', '.join([shard, *spread.over])}]"
                yield Finding(codes.SPREAD, (*where, "over"), message, hint)
            if spread.hash == table.key:
                message = f"`{key}` cannot be spread by `{spread.hash}`: all its rows have the same"
                yield Finding(codes.SPREAD, (*where, "hash"), message, "hash: id")


def _over(path: Path, over: Sequence[str], buckets: int, known: Sequence[str], *, least: int) -> Iterator[Finding]:
    once = list(dict.fromkeys(over))
    if len(once) < len(over):
        twice = next(shard for at, shard in enumerate(over) if shard in over[:at])
        message = f"`{twice}` stands twice in `over`"
        yield Finding(codes.SPREAD, (*path, "over", over.index(twice)), message, f"over: [{', '.join(once)}]")
    if len(once) < least:
        message = f"`over` has {len(once)} shard{'s' if len(once) != 1 else ''}; at least {least} belong there"
        yield Finding(codes.SPREAD, (*path, "over"), message, f"over: [{', '.join(known)}]")
    if buckets < len(once):
        message = f"{buckets} buckets cannot fill {len(once)} shards"
        yield Finding(codes.SPREAD, path, message, f"{BUCKETS} buckets, or more than there will ever be shards")


def shards_are_used(subject: Subject) -> Iterator[Finding]:
    fleet = subject.fleet
    if not fleet.tables or any(True for _ in tables_have_a_place(subject)):
        return  # with a table that has no place, nobody knows
    used = {shard for table in fleet.tables for shard in fleet.table_shards(table)}
    used |= {shard for name, table in fleet.tables.items() for each in table.lookups for shard in fleet.lookup_shards(name, each)}
    for shard in fleet.shards:
        if shard not in used:
            message, hint = f"no table uses the shard `{shard}`", f"place: {{{shard}: [KEY]}}   or remove it"
            yield Finding(codes.EMPTY_SHARD, ("shards", shard), message, hint, "warning", key=True)


def lookups_can_work(subject: Subject) -> Iterator[Finding]:
    fleet = subject.fleet
    for name, table in fleet.tables.items():
        key = table.key or fleet.tables[fleet.root_table(name)].key
        for each in table.lookups:
            path: Path = ("tables", name, "lookups", each)
            columns = table.lookup(each).columns
            if not columns:
                yield Finding(codes.LOOKUP, path, f"lookup `{each}` has no column", f"{each}: [{each}]")
            elif columns == (key,):
                message = f"lookup `{each}` looks for the key itself, which says the shard anyway"
                yield Finding(codes.LOOKUP, path, message, "remove it")
            elif len(set(columns)) < len(columns):
                yield Finding(
                    codes.LOOKUP,
                    path,
                    f"lookup `{each}` has one column twice",
                    f"[{', '.join(dict.fromkeys(columns))}]",
                )
            if not fleet.lookup_shards(name, each) and fleet.table_shards(name):
                message = f"every shard of `{name}` is bound by a residency: where may the lookup `{each}` live?"
                hint = f"{each}: {{columns: [{', '.join(columns)}], over: [{', '.join(fleet.table_shards(name))}]}}"
                yield Finding(codes.LOOKUP, path, message, hint)


def partitions_add_up(subject: Subject) -> Iterator[Finding]:
    for name, table in subject.fleet.tables.items():
        partition = table.partition
        if partition is None:
            continue
        path: Path = ("tables", name, "partition")
        if partition.keep is None:
            if partition.then is not None:
                message = f"`then: {partition.then}` has no time to come: `keep` says when"
                yield Finding(codes.PARTITION, (*path, "then"), message, "keep: 13 months")
        elif period_days(partition.keep) < period_days(f"1 {partition.every}"):
            message = f"a partition holds one {partition.every}, so {partition.keep} cannot be kept"
            yield Finding(codes.PARTITION, (*path, "keep"), message, f"keep: 2 {partition.every}s")
