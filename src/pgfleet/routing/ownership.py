"""Ownership: which keys of each table one shard holds under a map, as values that can be compared.

A map says where every key is; a shard only has to know what is its own. Two maps that are different may leave it the same
keys, and then nothing that is sent to it has to be refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from pgfleet.routing.hashing import bucket
from pgfleet.routing.placement import Hashed, Placement, TablePlacement


@dataclass(frozen=True, slots=True)
class Share:
    """Some of the buckets of a hash: bucket b where ``b % step`` is one of ``at``.

    :param column: the second column whose hash decides; None: the key's own.
    """

    buckets: int
    step: int
    at: frozenset[int]
    column: str | None = None

    @property
    def whole(self) -> bool:
        """Whether these are all of them, so that nothing has to be hashed."""
        return self.step == len(self.at)

    def within(self, other: Share | None) -> bool:
        """Whether ``other`` has all of these. Of hashes with other buckets, or of another column, nobody can say: no."""
        if other is None or other.whole:
            return other is not None
        if (self.buckets, self.column) != (other.buckets, other.column):
            return False
        return all(b % other.step in other.at for b in range(self.buckets) if b % self.step in self.at)


#: Every row of a key, or every key.
ALL = Share(1, 1, frozenset({0}))


@dataclass(frozen=True, slots=True)
class Owned:
    """What one shard holds of one table.

    :param root: the table whose placement it is.
    :param key: the table's own key column.
    :param named: what is the shard's of the keys that are placed by name; None: nothing. Keys that are elsewhere by name, and
        would be by their bucket, are left out.
    :param others: what is its of all other keys.
    :param lookups: where the entries of the table's lookups are, by lookup.
    """

    root: str
    key: str
    named: Mapping[str, Share | None]
    others: Share | None
    lookups: Mapping[str, Hashed] = field(default_factory=dict)

    def share(self, key: str) -> Share | None:
        """What is the shard's of ``key``; None: nothing."""
        if key in self.named:
            return self.named[key]
        return _of_key(self.others, key)

    @property
    def seconds(self) -> tuple[str, ...]:
        """The columns that decide beside the key, for keys that are spread; sorted."""
        return tuple(sorted({share.column for share in self.named.values() if share is not None and share.column is not None}))

    def within(self, other: Owned) -> bool:
        """Whether ``other`` holds every row that this does. By another column, nobody can say: no."""
        if self.key != other.key:
            return False
        for key in (*self.named, *other.named):
            mine = self.share(key)
            if mine is not None and not mine.within(other.share(key)):
                return False
        return self.others is None or self.others.within(other.others)

    def finds(self, older: Owned) -> bool:
        """Whether entries of lookups that were made by ``older`` are looked for where they are."""
        return all(self.lookups.get(name) == hashed for name, hashed in older.lookups.items())


Ownership = Mapping[str, Owned]


def ownership(placement: Placement, shard: str) -> dict[str, Owned]:
    """What ``shard`` holds of every placed table, by table, sorted. It may be nothing: then it has to refuse every row."""
    roots = {name: _owned(name, rule, shard) for name, rule in placement.tables.items()}
    others = {name: replace(roots[root], key=placement.key_column(name)) for name, root in placement.follows.items()}
    return {name: replace(owned, lookups=_lookups(placement, name)) for name, owned in sorted((roots | others).items())}


@dataclass(frozen=True, slots=True)
class Change:
    """What a map does to a shard that had another.

    :param loses: some rows that it held may no longer be its. :param gains: some may be newly its.
    :param differs: what it has to refuse is not the same; also where neither of both: a table that is placed since now, or a
        lookup that is elsewhere, so that who goes by the old map would claim values there.
    """

    loses: bool
    gains: bool
    differs: bool


def change(old: Ownership, new: Ownership) -> Change:
    """From ``old`` to ``new``. Errs towards true: two ways of hashing are never compared."""
    both = old.keys() & new.keys()
    loses = any(not old[table].within(new[table]) for table in both)
    gains = any(not new[table].within(old[table]) for table in both)
    otherwise = old.keys() != new.keys() or any((old[t].root, old[t].key) != (new[t].root, new[t].key) for t in both)
    otherwise = otherwise or not all(new[table].finds(old[table]) for table in both)
    return Change(loses, gains or bool(new.keys() - old.keys()), loses or gains or otherwise)


def same_map(one: Placement, other: Placement) -> bool:
    """Whether both place every key alike, whatever their epochs."""
    return replace(one, epoch=0) == replace(other, epoch=0)


def succeeding(placement: Placement, known: Iterable[Placement]) -> Placement:
    """``placement`` with the epoch that it has where ``known`` maps were already given out, to etcd or to some shard.

    The newest of them keeps its epoch when it is the same map; any other map needs an epoch that no map ever had.
    """
    newest = max(known, key=lambda each: each.epoch, default=None)
    if newest is None:
        return replace(placement, epoch=1)
    return replace(placement, epoch=newest.epoch if same_map(placement, newest) else newest.epoch + 1)


def _owned(name: str, rule: TablePlacement, shard: str) -> Owned:
    others = _share(rule.elsewhere, shard)
    if others is not None:
        others = replace(others, column=None)
    named: dict[str, Share | None] = {key: ALL if there == shard else None for key, there in rule.listed.items()}
    named |= {key: _share(spread, shard) for key, spread in rule.spread.items()}
    told = {key: share for key, share in named.items() if share is not None or _of_key(others, key) is not None}
    return Owned(name, rule.key, dict(sorted(told.items())), others)


def _lookups(placement: Placement, table: str) -> dict[str, Hashed]:
    return {name: hashed for (of, name), hashed in sorted(placement.lookups.items()) if of == table}


def _share(hashed: Hashed | None, shard: str) -> Share | None:
    if hashed is None or shard not in hashed.over:
        return None
    at = frozenset(number for number, each in enumerate(hashed.over) if each == shard)
    if len(at) == len(hashed.over):
        return ALL
    return Share(hashed.buckets, len(hashed.over), at, hashed.column)


def _of_key(others: Share | None, key: str) -> Share | None:
    if others is None or others.whole:
        return others
    return ALL if bucket(key, others.buckets) % others.step in others.at else None
