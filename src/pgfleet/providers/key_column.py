"""The column that places a table's rows, and its values: those that are asked for, or all of them, page by page.

Values are told as text. Where equal values have one text, and an index begins with the column, they are found by jumping from one
to the next in it; otherwise the whole table is read, which takes longer and says the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from pgfleet.names import quote_identifier

#: Keys in memory at a time.
PAGE = 5_000

#: Bits, the sign among them.
_WHOLE = {"smallint": 16, "integer": 32, "bigint": 64}
_TEXTS = ("text", "character varying")

_COLUMN = """
with recursive column_of as (
    select attrelid, attnum, atttypid, attcollation from pg_attribute
    where attrelid = $1::regclass and attname = $2 and attnum > 0 and not attisdropped
), types as (
    select atttypid as type from column_of
    union all
    select typbasetype from pg_type join types on oid = type where typtype = 'd'
)
select
    (select format_type(oid, null) from pg_type join types on oid = type where typtype <> 'd') as type,
    (select typtype = 'e' from pg_type join types on oid = type where typtype <> 'd') as labels,
    coalesce((select collisdeterministic from pg_collation where oid = attcollation), true) as exact,
    exists (
        select from pg_index i join pg_opclass o on o.oid = i.indclass[0]
        where i.indrelid = attrelid and i.indkey[0] = attnum and i.indisvalid and i.indpred is null and o.opcdefault
            and i.indcollation[0] = attcollation and o.opcmethod = (select oid from pg_am where amname = 'btree')
    ) as indexed
from column_of
"""

#: The distinct keys of a table, found by jumping from one to the next in the index that begins with the key (PostgreSQL wiki,
#: "Loose indexscan"): as many steps as there are keys, however many rows. A cursor makes no more steps than it is asked for.
_JUMPED = """
with recursive keys as (
  (select {key} as key from {table} where {key} is not null order by {key} limit 1)
  union all
  select (select {key} from {table} where {key} > keys.key order by {key} limit 1) from keys where keys.key is not null
)
select key::text from keys where key is not null
"""
_READ = 'select distinct {key}::text collate "C" as key from {table} where {key} is not null'


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """:param type: of its values, below any domain.
    :param one_text: whether equal values have one text, the same in every session (as pgfleet.places() says).
    :param jumps: whether the distinct values can be found by an index.
    """

    table: str
    column: str
    type: str
    one_text: bool
    jumps: bool

    @property
    def relation(self) -> str:
        return f"public.{quote_identifier(self.table)}"

    @property
    def quoted(self) -> str:
        return quote_identifier(self.column)

    def every(self) -> str:
        """The query of all values."""
        return (_JUMPED if self.jumps else _READ).format(key=self.quoted, table=self.relation)

    def written(self, key: str) -> bool:
        """Whether a value is written so: of whole numbers and uuids, nothing else is among them, and could not be asked for."""
        try:
            if self.type in _WHOLE:
                return str(int(key)) == key and -(1 << _WHOLE[self.type] - 1) <= int(key) < 1 << _WHOLE[self.type] - 1
            return self.type != "uuid" or str(UUID(key)) == key
        except ValueError:
            return False


async def key_column(connection: asyncpg.Connection[asyncpg.Record], table: str, column: str) -> KeyColumn | None:
    """What the column of ``public.table`` is; None: there is none."""
    row = await connection.fetchrow(_COLUMN, f"public.{quote_identifier(table)}", column)
    if row is None:
        return None
    one_text = bool(row["labels"]) or row["type"] in (*_TEXTS, "character", "uuid", *_WHOLE)
    return KeyColumn(table, column, row["type"], one_text, row["exact"] and row["indexed"] and one_text)


async def keys_among(connection: asyncpg.Connection[asyncpg.Record], key: KeyColumn, wanted: Collection[str]) -> list[str]:
    """Those of ``wanted`` that some row has, however many others there are; sorted."""
    if key.jumps and (key.type in (*_TEXTS, "uuid", *_WHOLE)):
        condition = f"{key.quoted} = any ($1::text[]::{key.type}[])"
        wanted = [each for each in wanted if key.written(each)]
    else:
        condition = f'{key.quoted}::text collate "C" = any ($1::text[])'
    if not wanted:
        return []
    query = f'select distinct {key.quoted}::text collate "C" as key from {key.relation} where {condition} order by 1'
    return [row["key"] for row in await connection.fetch(query, sorted(wanted))]


async def pages_of_keys(connection: asyncpg.Connection[asyncpg.Record], key: KeyColumn) -> AsyncIterator[list[str]]:
    """Every distinct value, each once. In a transaction."""
    await connection.execute(f"declare pgfleet_keys no scroll cursor for {key.every()}")
    while page := await connection.fetch(f"fetch {PAGE} from pgfleet_keys"):
        yield [row["key"] for row in page]
    await connection.execute("close pgfleet_keys")
