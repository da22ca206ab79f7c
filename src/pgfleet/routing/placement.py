"""Placement: which shard holds a key of a table, and because of what.

Everything is worked out when the placement is made, so that a key costs a look into a dict (listed) or one SHA-256 (not
listed). Pure: it is built from a fleet by looking at its attributes, or from JSON, and imports neither.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgfleet.errors import PlacementError
from pgfleet.routing.hashing import Key, bucket, key_text

_JSON_VERSION = 1


@dataclass(frozen=True, slots=True)
class Placed:
    """A decision: the shard, and the sentence that says why."""

    shard: str
    because: str


@dataclass(frozen=True, slots=True)
class Hashed:
    """Buckets over shards: bucket b lives on ``over[b % len(over)]``.

    :param column: the second column whose hash decides; None where the key itself does.
    """

    buckets: int
    over: tuple[str, ...]
    column: str | None = None

    def shard(self, number: int) -> str:
        return self.over[number % len(self.over)]


@dataclass(frozen=True, slots=True)
class TablePlacement:
    """One table that has a placement of its own.

    :param listed: key -> shard.
    :param spread: key -> how a second column spreads it.
    :param elsewhere: keys that are not listed; None: they are refused.
    """

    key: str
    listed: Mapping[str, str]
    spread: Mapping[str, Hashed]
    elsewhere: Hashed | None

    def shards(self) -> tuple[str, ...]:
        """Every shard that holds some of it, each once: in the order of listing, then of spreads and elsewhere."""
        found = dict.fromkeys(self.listed.values())
        for spread in self.spread.values():
            found |= dict.fromkeys(spread.over)
        if self.elsewhere:
            found |= dict.fromkeys(self.elsewhere.over)
        return tuple(found)


@dataclass(slots=True)
class _Decisions:
    """What one table's keys lead to, worked out beforehand."""

    rule: TablePlacement
    listed: dict[str, Placed]
    buckets: tuple[Placed, ...]
    shards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everything is. Changed only by making another, with a higher ``epoch``.

    :param tables: those that have a placement of their own.
    :param follows: a table -> the table of ``tables`` with whose rows its rows live.
    :param keys: the key column of the tables that follow.
    :param lookups: (table, lookup) -> where its entries live, hashed by the looked-up columns.
    """

    tables: Mapping[str, TablePlacement]
    follows: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    lookups: Mapping[tuple[str, str], Hashed] = field(default_factory=dict)
    epoch: int = 1
    _decisions: dict[str, _Decisions] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        made = {name: _decide(rule) for name, rule in self.tables.items()}
        for name, root in self.follows.items():
            made[name] = made[root]
        object.__setattr__(self, "_decisions", made)

    @classmethod
    def of(cls, fleet: Any, *, epoch: int = 1, known: Iterable[Placement] = ()) -> Placement:
        """The placement that a checked :class:`pgfleet.spec.fleet.Fleet` declares.

        :param known: maps that were given out. Where the file does not say which shards hold a lookup, those of the newest go on
            to: its entries are there, and a shard that is added changes nothing of that.
        """
        newest = max(known, key=lambda each: each.epoch, default=None)
        tables: dict[str, TablePlacement] = {}
        follows: dict[str, str] = {}
        keys: dict[str, str] = {}
        lookups: dict[tuple[str, str], Hashed] = {}
        for name, table in fleet.tables.items():
            root = fleet.root_table(name)
            if root != name:
                follows[name] = root
                keys[name] = table.key or fleet.tables[root].key
            else:
                tables[name] = _rule(table, tuple(fleet.shards))
            for lookup in table.lookups:
                entry = table.lookup(lookup)
                there = newest.lookups.get((name, lookup)) if newest is not None and not entry.over else None
                over = there.over if there is not None and set(there.over) <= set(fleet.shards) else ()
                over = over or fleet.lookup_shards(name, lookup)
                lookups[name, lookup] = Hashed(entry.buckets, over, ", ".join(entry.columns))
        return cls(tables, follows, keys, lookups, epoch)

    def shard(self, table: str, key: Key, second: Key | None = None) -> Placed:
        """The shard that holds ``key`` of ``table``.

        :param second: the value of the second column, for a key that is spread by one; otherwise not looked at.
        :raises PlacementError: no such table, no place for such a key, not a key at all, or a spread key
            without ``second``.
        """
        decisions = self._decisions.get(table)
        if decisions is None:
            raise self._unknown(table)
        if type(key) is str and (placed := decisions.listed.get(key)) is not None:
            return placed
        return self._slowly(table, decisions, key, second)

    def shards_of_key(self, table: str, key: Key) -> tuple[str, ...]:
        """Every shard that may hold rows of ``key``: one, unless the key is spread.

        :raises PlacementError: as :meth:`shard`.
        """
        decisions = self._of(table)
        spread = decisions.rule.spread.get(_text(table, key))
        return tuple(dict.fromkeys(spread.over)) if spread else (self.shard(table, key).shard,)

    def shards(self, table: str) -> tuple[str, ...]:
        """Every shard that holds ``table``.

        :raises PlacementError: no such table.
        """
        return self._of(table).shards

    def tables_of(self, shard: str) -> tuple[str, ...]:
        """Every table that ``shard`` holds some of, sorted."""
        return tuple(sorted(name for name, decisions in self._decisions.items() if shard in decisions.shards))

    def key_column(self, table: str) -> str:
        """The column that places rows of ``table``.

        :raises PlacementError: no such table.
        """
        return self.keys.get(table) or self._of(table).rule.key

    def second_column(self, table: str, key: Key) -> str | None:
        """The column that spreads ``key``; None where the key lives on one shard."""
        spread = self._of(table).rule.spread.get(_text(table, key))
        return spread.column if spread else None

    def lookup(self, table: str, name: str, *values: Key) -> Placed:
        """The shard that holds the entry of lookup ``name`` for ``values``, in the order of its columns.

        Several values are hashed as their texts joined by U+001F, the unit separator.

        :raises PlacementError: no such lookup, or a value that is not a key.
        """
        hashed = self.lookups.get((table, name))
        if hashed is None:
            raise PlacementError(f"table {table} has no lookup {name}", hint=_known(n for t, n in self.lookups if t == table))
        number = bucket("\x1f".join(_text(table, value) for value in values), hashed.buckets)
        return Placed(hashed.shard(number), f"lookup {name}: bucket {number} of {hashed.buckets}")

    def to_json(self) -> str:
        """Stable text: equal placements give equal text."""
        document = {
            "version": _JSON_VERSION,
            "epoch": self.epoch,
            "tables": {name: _rule_to_json(rule) for name, rule in self.tables.items()},
            "follows": {name: {"table": root, "key": self.keys.get(name)} for name, root in self.follows.items()},
            "lookups": [[table, name, _hashed_to_json(hashed)] for (table, name), hashed in sorted(self.lookups.items())],
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Placement:
        """:raises ValueError: not a placement, or one of a version that this code does not know."""
        try:
            raw = json.loads(text)
            if raw["version"] != _JSON_VERSION:
                raise ValueError(f"a placement of version {raw['version']}; this pgfleet reads {_JSON_VERSION}")
            return cls(
                {name: _rule_from_json(rule) for name, rule in raw["tables"].items()},
                {name: entry["table"] for name, entry in raw["follows"].items()},
                {name: entry["key"] for name, entry in raw["follows"].items() if entry["key"]},
                {(table, name): _hashed_from_json(hashed) for table, name, hashed in raw["lookups"]},
                raw["epoch"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a placement: {error!r}") from error

    def _of(self, table: str) -> _Decisions:
        decisions = self._decisions.get(table)
        if decisions is None:
            raise self._unknown(table)
        return decisions

    def _unknown(self, table: str) -> PlacementError:
        return PlacementError(f"no table {table} is placed", hint=_known(self._decisions))

    def _slowly(self, table: str, decisions: _Decisions, key: Key, second: Key | None) -> Placed:
        """A key that is not text that is listed."""
        text = _text(table, key)
        rule = decisions.rule
        if (placed := decisions.listed.get(text)) is not None:
            return placed
        if (spread := rule.spread.get(text)) is not None:
            if second is None:
                raise PlacementError(
                    f"{text} of {table} is spread over {', '.join(spread.over)} by its {spread.column}",
                    hint=f"give the value of {spread.column} too, or ask every one of them",
                )
            number = bucket(_text(table, second), spread.buckets)
            return Placed(spread.shard(number), f"{text} is spread by {spread.column}: bucket {number} of {spread.buckets}")
        if rule.elsewhere is None:
            raise PlacementError(
                f"{text!r} is no {rule.key} that {table} has a place for",
                hint="list it under `place`, or say `elsewhere: {hash: 64, over: [...]}` in the file",
            )
        return decisions.buckets[bucket(text, rule.elsewhere.buckets)]


def _decide(rule: TablePlacement) -> _Decisions:
    listed = {key: Placed(shard, f"{key} is listed") for key, shard in rule.listed.items()}
    elsewhere = rule.elsewhere
    buckets: tuple[Placed, ...] = ()
    if elsewhere and elsewhere.buckets == 1:
        buckets = (Placed(elsewhere.over[0], "every key lives there"),)
    elif elsewhere:
        buckets = tuple(
            Placed(elsewhere.shard(number), f"not listed; bucket {number} of {elsewhere.buckets}")
            for number in range(elsewhere.buckets)
        )
    return _Decisions(rule, listed, buckets, rule.shards())


def _rule(table: Any, shards: tuple[str, ...]) -> TablePlacement:
    listed: dict[str, str] = {}
    spread: dict[str, Hashed] = {}
    for key, shard, over in table.listed():
        if over is None:
            listed[key] = shard
        else:
            spread[key] = Hashed(over.buckets, tuple(over.over), over.hash)
    elsewhere: Hashed | None = None
    if table.elsewhere is not None and table.elsewhere != "refuse":
        elsewhere = Hashed(table.elsewhere.hash, tuple(table.elsewhere.over))
    elif table.elsewhere is None and not table.place and len(shards) == 1:
        elsewhere = Hashed(1, shards)  # a fleet of one shard has no choice
    return TablePlacement(table.key, listed, spread, elsewhere)


def _text(table: str, key: Key) -> str:
    try:
        return key_text(key)
    except (TypeError, ValueError) as error:
        raise PlacementError(f"{table}: {error}") from None


def _known(names: Any) -> str:
    return f"known: {', '.join(sorted(names))}" if names else ""


def _hashed_to_json(hashed: Hashed) -> dict[str, object]:
    return {"buckets": hashed.buckets, "over": list(hashed.over), "column": hashed.column}


def _hashed_from_json(raw: Any) -> Hashed:
    return Hashed(raw["buckets"], tuple(raw["over"]), raw["column"])


def _rule_to_json(rule: TablePlacement) -> dict[str, object]:
    return {
        "key": rule.key,
        "listed": dict(rule.listed),
        "spread": {key: _hashed_to_json(hashed) for key, hashed in rule.spread.items()},
        "elsewhere": _hashed_to_json(rule.elsewhere) if rule.elsewhere else None,
    }


def _rule_from_json(raw: Any) -> TablePlacement:
    return TablePlacement(
        raw["key"],
        dict(raw["listed"]),
        {key: _hashed_from_json(hashed) for key, hashed in raw["spread"].items()},
        _hashed_from_json(raw["elsewhere"]) if raw["elsewhere"] else None,
    )
