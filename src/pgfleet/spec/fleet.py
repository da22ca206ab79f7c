"""The fleet that the file declares: the root of the models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pgfleet.spec.part import Part
from pgfleet.spec.pools import Pools
from pgfleet.spec.promises import DEFAULTS, Promises
from pgfleet.spec.providers import DEFAULT, PROVIDERS, Traits
from pgfleet.spec.region import HOME, Region
from pgfleet.spec.scalars import Identifier, Name, Setting
from pgfleet.spec.shape import GivenNode, NodeShape, ShardShape, given_nodes, nodes_of
from pgfleet.spec.shard import Group, Shard
from pgfleet.spec.table import Elsewhere, Table

#: etcd needs an odd number of members; three survive the loss of one.
ETCD_MEMBERS = 3


class Fleet(Part):
    """A sharded, geo-replicated, highly available PostgreSQL fleet."""

    fleet: Name
    """The fleet's name; its state folder is called so."""
    postgres: Annotated[int, Field(strict=True, ge=15, le=99)] = 15
    """PostgreSQL's major version."""
    database: Identifier = "app"
    """The database that holds the tables, the same on every shard."""
    through: Literal["direct", "pooler"] = "direct"
    """Whether applications connect to the nodes or to their region's pooler."""
    regions: dict[Name, Region]
    """Places that can be lost as a whole."""
    groups: dict[Name, Group] = Field(default_factory=dict)
    """Shapes that many shards share."""
    shards: dict[Name, Shard]
    """Highly available PostgreSQLs, each a primary and its replicas."""
    tables: dict[Identifier, Table] = Field(default_factory=dict)
    """Where the rows of each table live."""
    promises: Promises = Field(default_factory=Promises)
    """What may be counted on, by class of fault."""
    pools: Pools = Field(default_factory=Pools)
    """Numbers of connections."""
    settings: dict[str, Setting] = Field(default_factory=dict)
    """PostgreSQL parameters of every shard."""

    @property
    def provider(self) -> str:
        """The provider of every region (``check`` refuses two)."""
        return next((region.provider for region in self.regions.values()), DEFAULT)

    @property
    def traits(self) -> Traits:
        """What its provider can do; what ``local`` can, where nobody knows that provider (``check`` tells)."""
        return PROVIDERS.get(self.provider, PROVIDERS[DEFAULT])

    def shapes(self) -> tuple[ShardShape, ...]:
        """Every shard with everything said, in file order."""
        return tuple(self.shape(name) for name in self.shards)

    def shape(self, name: str) -> ShardShape:
        """The shard called ``name``.

        :raises KeyError: there is none.
        """
        shard = self.shards[name]
        group = self._group(shard)
        home = self.home(name) or ""
        if shard.primary is not None:
            nodes = tuple(NodeShape(node.name, node.name.region, "voter") for node in self.given(name))
            return ShardShape(name, home, {}, {}, 0, {}, nodes)
        declared = shard.voters if shard.voters is not None else group.voters
        if declared is None:
            declared = {HOME: 2}
        voters = _resolved(declared, home)
        readers = _resolved(group.readers if shard.readers is None else shard.readers, home)
        sync = shard.sync if shard.sync is not None else group.sync
        if sync is None:
            sync = 1 if sum(voters.values()) > 1 else 0
        settings = dict(self.settings) | dict(group.settings) | dict(shard.settings)
        return ShardShape(name, home, voters, readers, sync, settings, nodes_of(name, home, voters, readers))

    def given(self, shard: str) -> tuple[GivenNode, ...]:
        """The servers that a shard of provider ``existing`` is given by, the primary first; none of any other."""
        said = self.shards[shard]
        if said.primary is None:
            return ()
        home, path = self.home(shard) or "", ("shards", shard, "replicas")
        dsns: list[tuple[str, str, tuple[str | int, ...]]] = [(home, said.primary, ("shards", shard, "primary"))]
        if isinstance(said.replicas, dict):
            for region, some in said.replicas.items():
                place = home if region == HOME else region
                if isinstance(some, str):
                    dsns.append((place, some, (*path, region)))
                else:
                    dsns += [(place, dsn, (*path, region, at)) for at, dsn in enumerate(some)]
        else:
            dsns += [(home, dsn, (*path, at)) for at, dsn in enumerate(said.replicas)]
        return tuple(given_nodes(shard, dsns))

    def home(self, shard: str) -> str | None:
        """The home of ``shard``: its own, its group's, or the only region there is; None where nothing says it."""
        declared = self.shards[shard]
        only = next(iter(self.regions)) if len(self.regions) == 1 else None
        return declared.home or self._group(declared).home or only

    def promises_of(self, shard: str) -> Promises:
        """What is promised for ``shard``: its own, over its group's, over the fleet's, over the defaults."""
        declared = self.shards[shard]
        return declared.promises.over(self._group(declared).promises.over(self.promises.over(DEFAULTS)))

    def root_table(self, table: str) -> str:
        """The table whose placement ``table`` has: itself, or the end of its chain of ``with``.

        Itself where that chain has no end (``check`` tells)."""
        seen = [table]
        while (following := self.tables[seen[-1]].with_) is not None:
            if following in seen or following not in self.tables:
                return table
            seen.append(following)
        return seen[-1]

    def table_shards(self, table: str) -> tuple[str, ...]:
        """Every shard that holds some of ``table``, in the order of ``shards``."""
        root = self.tables[self.root_table(table)]
        used: set[str] = set()
        for _, shard, spread in root.listed():
            used |= set(spread.over) if spread else {shard}
        if isinstance(root.elsewhere, Elsewhere):
            used |= set(root.elsewhere.over)
        elif root.elsewhere is None and not root.place and len(self.shards) == 1:
            return tuple(self.shards)
        return tuple(shard for shard in self.shards if shard in used)

    def lookup_shards(self, table: str, lookup: str) -> tuple[str, ...]:
        """The shards of a lookup's entries: as said, else those of its table that no residency binds."""
        said = self.tables[table].lookup(lookup).over
        return said or tuple(shard for shard in self.table_shards(table) if not self.shards[shard].residency)

    def etcd_regions(self) -> tuple[str, ...]:
        """The regions of etcd's three members: those that hold most shards' voters, so that an election's majority is
        near; as different as there are regions; none where the provider has no etcd of ours."""
        if not self.traits.provisions:
            return ()
        weight = dict.fromkeys(self.regions, 0)
        for shape in self.shapes():
            for region in shape.voters:
                if region in weight:
                    weight[region] += 1
        chosen = sorted(weight, key=lambda region: -weight[region])[:ETCD_MEMBERS]  # sorted() keeps the file's order in ties
        return tuple(chosen[at % len(chosen)] for at in range(ETCD_MEMBERS)) if chosen else ()

    def _group(self, shard: Shard) -> Group:
        """The group of ``shard``; an empty one where it names none, or one that is not declared (``check`` tells)."""
        return self.groups.get(shard.group or "") or Group()


def _resolved(places: dict[str, int], home: str) -> dict[str, int]:
    """``places`` with the alias ``home`` replaced, and without regions that hold nothing."""
    found: dict[str, int] = {}
    for region, count in places.items():
        if count:
            actual = home if region == HOME else region
            found[actual] = found.get(actual, 0) + count
    return found
