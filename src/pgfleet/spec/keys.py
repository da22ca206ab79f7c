"""Which keys the file knows at which place."""

from __future__ import annotations

from collections.abc import Mapping

from pgfleet.spec.document import Path
from pgfleet.spec.fleet import Fleet
from pgfleet.spec.part import Part
from pgfleet.spec.pools import Pools
from pgfleet.spec.promises import Latency, Loss, Promises, ReplicaLag
from pgfleet.spec.region import Region
from pgfleet.spec.shard import Group, Shard
from pgfleet.spec.table import Elsewhere, Lookup, Partition, Spread, Table

_PROMISES: Mapping[tuple[str, ...], tuple[str, type[Part]]] = {
    ("promises",): ("promises", Promises),
    ("promises", "crash"): ("a promise", Loss),
    ("promises", "silent"): ("a promise", Loss),
    ("promises", "region"): ("a promise", Loss),
    ("promises", "replica_lag"): ("replica_lag", ReplicaLag),
    ("promises", "query"): ("query", Latency),
}

#: Place in the file (``*`` is any name) -> what it is called in a sentence, and its model.
PLACES: dict[tuple[str, ...], tuple[str, type[Part]]] = {
    (): ("the file", Fleet),
    ("regions", "*"): ("a region", Region),
    ("groups", "*"): ("a group", Group),
    ("shards", "*"): ("a shard", Shard),
    ("tables", "*"): ("a table", Table),
    ("tables", "*", "elsewhere"): ("elsewhere", Elsewhere),
    ("tables", "*", "partition"): ("a partition", Partition),
    ("tables", "*", "lookups", "*"): ("a lookup", Lookup),
    ("tables", "*", "place", "*", "*", "*"): ("a spread", Spread),
    ("pools",): ("pools", Pools),
    **_PROMISES,
    **{("groups", "*", *path): place for path, place in _PROMISES.items()},
    **{("shards", "*", *path): place for path, place in _PROMISES.items()},
}


def _place(path: Path) -> tuple[str, type[Part]] | None:
    for pattern, place in PLACES.items():
        if len(pattern) == len(path) and all(p in ("*", word) for p, word in zip(pattern, path, strict=True)):
            return place
    return None


def known_keys(path: Path) -> tuple[str, ...]:
    """The keys that may stand in the mapping at ``path``; none where any name may stand."""
    place = _place(path)
    if place is None:
        return ()
    return tuple(field.alias or name for name, field in place[1].model_fields.items())


def noun_of(path: Path) -> str:
    """What the mapping at ``path`` is called in a sentence."""
    place = _place(path)
    return place[0] if place else f"`{path[-1]}`"


def default_of(path: Path) -> object:
    """The default of the key at the end of ``path``; None where it has none."""
    place = _place(path[:-1])
    if place is None:
        return None
    found = (field for name, field in place[1].model_fields.items() if path and (field.alias or name) == path[-1])
    return next((field.default for field in found if not field.is_required()), None)
