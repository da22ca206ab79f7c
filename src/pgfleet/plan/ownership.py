"""How a shard comes from the maps it has to the map it shall have, so that no key is ever owned by two shards.

First every shard that loses keys lets go of them (*release*), then every shard is given what is its own (*settle*). A shard
that both loses and gains owns, in between, what both maps say. Everything follows from what each shard has, so a change that
was stopped anywhere is finished by beginning it again.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgfleet.facts.fleet import FleetSeen
from pgfleet.render.ownership import digest
from pgfleet.routing.ownership import Change, Ownership, change, ownership, same_map
from pgfleet.routing.placement import Placement


@dataclass(frozen=True, slots=True)
class Held:
    """What a shard has in force.

    :param maps: it owns what all of them say; the last is the newest. More than one: a change is not finished.
    :param since: the epoch at which what it owns last changed.
    :param functions: digest of the functions that its guards ask.
    """

    maps: tuple[Placement, ...]
    since: int
    functions: str

    @property
    def newest(self) -> Placement:
        return self.maps[-1]


@dataclass(frozen=True, slots=True)
class Turn:
    """One transaction on a shard: what it has afterwards.

    :param exclusive: what it owns changes: it waits until nobody writes, and whoever comes waits for it.
    :param loses: rows may be there that nobody would find any more.
    """

    shard: str
    maps: tuple[Placement, ...]
    since: int
    functions: str
    exclusive: bool
    loses: bool = False

    def ownerships(self) -> tuple[Ownership, ...]:
        return tuple(ownership(each, self.shard) for each in self.maps)


def known_maps(seen: FleetSeen) -> tuple[Placement, ...]:
    """Every map that was seen: the recorded one, and those of shards, which a change that was stopped may have left different.

    :raises ValueError: one that this pgfleet cannot read.
    """
    texts = [seen.placement] if seen.placement is not None else []
    texts += [text for shard in seen.shards.values() if shard.placement is not None for text in shard.placement.maps]
    return tuple(Placement.from_json(text) for text in dict.fromkeys(texts))


def superseded(held: Held | None, placement: Placement) -> str:
    """Why ``placement`` is not to be put in force over ``held``; empty: it may be."""
    if held is None or held.newest.epoch < placement.epoch:
        return ""
    if held.newest.epoch > placement.epoch:
        return f"has the map of epoch {held.newest.epoch}, which is newer than {placement.epoch}"
    return "" if same_map(held.newest, placement) else f"has another map of the same epoch, {placement.epoch}"


def release(held: Held | None, placement: Placement, shard: str) -> Turn | None:
    """The turn in which ``shard`` lets go of what ``placement`` gives to others; None: it need not, or has done so."""
    if held is None or held.newest.epoch == placement.epoch:
        return None
    changes = _changes(held, placement, shard)
    # It owns what all its maps say: nothing is lost where one of them has no more than the new one.
    if not all(each.loses for each in changes):
        return None
    gains = any(each.gains for each in changes)
    return _turn(shard, (*held.maps, placement) if gains else (placement,), placement.epoch, loses=True)


def settle(held: Held | None, placement: Placement, shard: str) -> Turn | None:
    """The turn after which ``shard`` has ``placement`` and nothing else; None: it has.

    Only once no shard is left that :func:`release` has a turn for.
    """
    if held is None:
        return _turn(shard, (placement,), placement.epoch)
    differs = len(held.maps) > 1 or _changes(held, placement, shard)[0].differs
    turn = _turn(shard, (placement,), placement.epoch if differs else held.since, exclusive=differs)
    return None if after(turn) == held else turn


def after(turn: Turn) -> Held:
    """What a shard has in force after ``turn``."""
    return Held(turn.maps, turn.since, turn.functions)


def rekeyed(held: Held | None, placement: Placement) -> frozenset[str]:
    """Tables whose rows ``placement`` places by another column than a map in force. Until every shard has let go of them, none
    owns any (render/ownership.py)."""
    maps = held.maps if held is not None else ()
    return frozenset(
        table
        for each in maps
        for table in (*placement.tables, *placement.follows)
        if (table in each.tables or table in each.follows) and each.key_column(table) != placement.key_column(table)
    )


def _changes(held: Held, placement: Placement, shard: str) -> list[Change]:
    new = ownership(placement, shard)
    return [change(ownership(each, shard), new) for each in held.maps]


def _turn(shard: str, maps: tuple[Placement, ...], since: int, *, exclusive: bool = True, loses: bool = False) -> Turn:
    functions = digest([ownership(each, shard) for each in maps])
    return Turn(shard, maps, since, functions, exclusive, loses)
