"""Rows that a new map would lose sight of: those whose key it places on another shard than they are on.

Looked for before a changed map is put in force, and once more on each shard that lets go of keys, when nobody can write there;
a change that loses none is fine. Of lookups the same: providers/entries.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import asyncpg

from pgfleet.errors import CannotConnect, PlacementError, PlacementLosesRows, RowsUnseen, ShardUnasked
from pgfleet.facts.addresses import NodeAddress
from pgfleet.facts.fleet import FleetSeen
from pgfleet.names import quote_identifier
from pgfleet.plan.ownership import Held, Turn, known_maps
from pgfleet.plan.wanted import Wanted
from pgfleet.providers.entries import Of, entries_of, moved_lookups, refuse_entries
from pgfleet.providers.key_column import KeyColumn, key_column, keys_among, pages_of_keys
from pgfleet.routing.ownership import ownership, same_map
from pgfleet.routing.placement import Hashed, Placement

#: For looking at one table while its writers wait.
LOOK_SECONDS = 5.0
#: Lines that are told; who has read so many does not need the rest.
TOLD = 20

#: Opens a session of whoever may read the tables of a node, in the database that holds them.
Connect = Callable[[NodeAddress], "Awaitable[asyncpg.Connection[asyncpg.Record]]"]


async def refuse_lost_rows(connect: Connect, seen: FleetSeen, wanted: Wanted) -> None:
    """Look on every shard for keys, and for entries of lookups, that ``wanted`` places elsewhere than they are.

    :raises PlacementLosesRows: there are such keys; says which, where they are and where the file wants them.
    :raises LookupLosesEntries: there are such entries.
    :raises RowsUnseen: a table's rows are hidden from who looks.
    :raises ShardUnasked: a shard that holds a table could not be asked.
    """
    new = Placement.from_json(wanted.placement)
    old = [each for each in known_maps(seen) if not same_map(each, new)]
    moved = moved_lookups(old, new)
    holding = sorted(_holding_entries(seen, old, moved))
    entries = dict(zip(holding, await asyncio.gather(*(_entries(connect, seen, each, moved) for each in holding)), strict=True))
    refuse_entries(moved, {of: on for of in moved if (on := [shard for shard, there in entries.items() if of in there])})
    shards = {shard for each in old for table in (*each.tables, *each.follows) for shard in each.shards(table)}
    asked = [(shard, table) for shard in sorted(shards) for table in _tables_that_lose(shard, old, new)]
    answers = await asyncio.gather(*(_lost(connect, seen, shard, table, old, new) for shard, table in asked))
    _refuse(line for answer in answers for line in answer)


async def nothing_is_left(connection: asyncpg.Connection[asyncpg.Record], held: Held, turn: Turn) -> None:
    """Look once more, now that nobody can write: rows may have come since it was planned to give their keys away.

    :raises PlacementLosesRows, RowsUnseen: as :func:`refuse_lost_rows`.
    :raises asyncpg.PostgresError, TimeoutError: looking took longer than writers should wait.
    """
    await connection.execute(f"set local statement_timeout = '{LOOK_SECONDS:g}s'")
    new = turn.maps[-1]
    for table in _tables_that_lose(turn.shard, held.maps, new):
        async with asyncio.timeout(LOOK_SECONDS):
            _refuse(await _misplaced(connection, turn.shard, table, held.maps, new))


def _holding_entries(seen: FleetSeen, old: Sequence[Placement], moved: Iterable[Of]) -> set[str]:
    """Shards on which entries of ``moved`` can be: by a map that was in force; for a lookup that was in none, wherever there is
    a shard that has been prepared."""
    prepared = {shard for shard, there in seen.shards.items() if there.placement is not None and there.placement.maps}
    found: set[str] = set()
    for of in moved:
        over = {shard for each in old if of in each.lookups for shard in each.lookups[of].over}
        found |= over or prepared
    return found


async def _entries(connect: Connect, seen: FleetSeen, shard: str, lookups: Iterable[Of]) -> list[Of]:
    async with _asking(connect, seen, shard, "which entries of lookups it holds") as connection:
        return await entries_of(connection, lookups)


async def _lost(connect: Connect, seen: FleetSeen, shard: str, table: str, old: Sequence[Placement], new: Placement) -> list[str]:
    async with _asking(connect, seen, shard, f"which keys of {table} it holds") as connection:
        return await _misplaced(connection, shard, table, old, new)


@asynccontextmanager
async def _asking(connect: Connect, seen: FleetSeen, shard: str, what: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """:raises ShardUnasked: the shard did not say it."""
    primary = _primary(seen, shard)
    if primary is None:
        raise ShardUnasked(f"{shard} has no primary that could say {what}", hint="pgfleet status")
    try:
        connection = await connect(primary)
        try:
            yield connection
        finally:
            await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, CannotConnect) as error:
        raise ShardUnasked(f"{shard} did not say {what}", seen=[str(error)]) from error


async def _misplaced(
    connection: asyncpg.Connection[asyncpg.Record], shard: str, table: str, old: Sequence[Placement], new: Placement
) -> list[str]:
    """A line for each key that has rows of ``table`` on ``shard`` and that ``new`` places elsewhere; for twenty of them.

    :param old: the maps by which rows may have come there.
    :raises RowsUnseen: they are hidden from who looks.
    :raises asyncpg.PostgresError: the shard could not say it.
    """
    old = [each for each in old if table in each.tables or table in each.follows]
    if not await connection.fetchval("select to_regclass($1) is not null", f"public.{quote_identifier(table)}"):
        return []
    placed = table in new.tables or table in new.follows
    name = (new if placed else old[-1]).key_column(table)
    try:
        # Rows that row-level security hides are rows: where it does, this is an error. A transaction, or a savepoint of one.
        async with connection.transaction():
            await connection.execute("set local row_security = off")
            key = await key_column(connection, table, name)
            if key is None:
                # A column that rows are placed by comes before the map that places them by it.
                return [f"{table}: on {shard} it has no column {name}"]
            return await _of_key(connection, key, shard, old, new)
    except asyncpg.InsufficientPrivilegeError as error:
        raise RowsUnseen(
            f"whether {shard} has rows of {table} that would be lost cannot be seen", seen=[str(error)],
            hint=f"alter table public.{quote_identifier(table)} no force row level security",
        ) from error  # fmt: skip


async def _of_key(
    connection: asyncpg.Connection[asyncpg.Record], key: KeyColumn, shard: str, old: Sequence[Placement], new: Placement
) -> list[str]:
    table = key.table
    by_another = any(each.key_column(table) != key.column for each in old)
    lines: list[str] = []
    if by_another and not key.one_text:
        return [f"{table}: its column {key.column} on {shard} is of type {key.type}, which cannot place rows"]
    if by_another and await connection.fetchval(f"select exists (select from {key.relation} where {key.quoted} is null)"):
        lines.append(f"{table}: rows on {shard} have no {key.column}")
    named = {name for each in (*old, new) for name in _named(each, table) if _moved(table, name, shard, old, new, by_another)}
    lines += [_moved(table, name, shard, old, new, by_another) for name in await keys_among(connection, key, named)]
    if by_another or not _others_stay(shard, table, old, new):
        async for page in pages_of_keys(connection, key):
            found = (_moved(table, name, shard, old, new, by_another) for name in page if name not in named)
            lines += [line for line in found if line]
            if len(lines) >= TOLD:
                break
    return lines


def _others_stay(shard: str, table: str, old: Sequence[Placement], new: Placement) -> bool:
    """Whether keys that no map names can be nowhere but where they were."""
    now = ownership(new, shard).get(table)
    was = [ownership(each, shard)[table].others for each in old]
    return all(others is None or (now is not None and others.within(now.others)) for others in was)


def _named(placement: Placement, table: str) -> tuple[str, ...]:
    rule = placement.tables.get(placement.follows.get(table, table))
    return (*rule.listed, *rule.spread) if rule is not None else ()


def _tables_that_lose(shard: str, old: Sequence[Placement], new: Placement) -> tuple[str, ...]:
    """Tables of which ``shard`` may have rows by one of ``old``, and no longer by ``new``."""
    after = ownership(new, shard)
    found: dict[str, None] = {}
    for each in old:
        for table, owned in ownership(each, shard).items():
            if table not in after or not owned.within(after[table]):
                found[table] = None
    return tuple(found)


def _refuse(lost: Iterable[str]) -> None:
    """:raises PlacementLosesRows: ``lost`` names some."""
    seen = list(lost)
    if seen:
        raise PlacementLosesRows(
            "the file places keys elsewhere than their rows are", seen=seen[:TOLD], hint="put the placement back as it was"
        )


def _moved(table: str, key: str, shard: str, old: Sequence[Placement], new: Placement, by_another: bool) -> str:
    """What is to be said of rows with ``key`` on ``shard``; nothing: they stay.

    :param by_another: by another column than before, so that ``old`` says nothing of them.
    """
    maps = (new,) if by_another else (*old, new)
    try:
        if any(each.second_column(table, key) is not None for each in maps):
            same = not by_another and all(_spread(each, table, key) == _spread(new, table, key) for each in old)
            return "" if same else f"{table}: {key} is spread otherwise, and has rows on {shard}"
        there = new.shard(table, key).shard
    except PlacementError as error:
        return f"{table}: {key} has rows on {shard}, and no place in the file: {error.message}"
    return "" if there == shard else f"{table}: {key} has rows on {shard}, the file wants them on {there}"


def _spread(placement: Placement, table: str, key: str) -> Hashed | None:
    return placement.tables[placement.follows.get(table, table)].spread.get(key)


def _primary(seen: FleetSeen, shard: str) -> NodeAddress | None:
    there = seen.shards.get(shard)
    name = there.topology.primary if there is not None else None
    return seen.addresses.node(name) if name is not None and seen.addresses is not None else None
