"""Whether Python orders a column as PostgreSQL does: asked of the server, within the statement itself.

What a row's value is in Python does not tell: an enum, money, jsonb and citext arrive as text, and each has an order of its own.
So every statement whose answers are ordered or compared here carries a condition on its columns' types and collations, which is
true, or fails with words that :func:`refusal` knows. It is evaluated for the rows that are sent only.
"""

from __future__ import annotations

from collections.abc import Iterable

import asyncpg

from pgfleet.errors import CannotCombine, CannotMerge, PgfleetError
from pgfleet.names import quote_identifier, quote_literal

#: bool, bytea, "char", name, int8, int2, int4, oid, cidr, float4, float8, macaddr8, macaddr, inet, date, time, timestamp,
#: timestamptz, timetz, numeric, uuid; and arrays of bool, int2, int4, int8, date, uuid (src/include/catalog/pg_type.dat).
_PLAIN = (
    "any ('{16,17,18,19,20,21,23,26,650,700,701,774,829,869,1082,1083,1114,1184,1266,1700,2950,"
    "1000,1005,1007,1016,1182,2951}'::oid[])"
)
#: text, bpchar, varchar; and arrays of text and varchar: those that need a collation.
_TEXTS = "any ('{25,1042,1043,1009,1015}'::oid[])"
_INTERVAL = 1186
#: Collations, and a database's, that sort by code point.
_BY_CODE_POINT = r"""'^"?(pg_catalog\.)?"?(C|POSIX|C\.UTF-?8|ucs_basic|pg_c_utf8|pg_unicode_fast)"?$'"""
_DATABASE = (
    "(select d.datcollate ~* '^(C|POSIX|C\\.UTF-?8)$' and coalesce(to_jsonb(d)->>'datlocprovider', 'c') = 'c'"
    " or to_jsonb(d)->>'datlocprovider' = 'b' from pg_catalog.pg_database d where d.datname = current_database())"
)
_MARK = "pgfleet cannot"


def condition(columns: Iterable[tuple[str, bool]], *, combine: bool = False) -> str:
    """What is true where Python orders these columns as PostgreSQL does; SQL.

    :param columns: each with whether it has to be sorted by code point, if it is text.
    :param combine: for ``min`` and ``max``, not for an order.
    """
    return " and ".join(_of(column, collated, "combine" if combine else "merge") for column, collated in columns)


def _of(column: str, collated: bool, what: str) -> str:
    name = quote_identifier(column)
    type_, of = f"pg_catalog.pg_typeof({name})", f"pg_catalog.pg_collation_for({name})"

    def fails(why: str) -> str:
        # With the type in it, or the planner finds out at once that it fails.
        return f"({quote_literal(f'{_MARK} {what}|{column}|')} || {type_}::text || '|' || {why} || '|')::int = 0"

    by_code_point = f"case {of} when '\"default\"' then {_DATABASE} else {of} ~* {_BY_CODE_POINT} end" if collated else "true"
    years = f"extract(year from {name}::text::interval) <> 0"
    return (
        f"case when {type_}::oid = {_PLAIN} then true "
        f"when {type_}::oid = {_INTERVAL} then case when {years} then {fails(quote_literal('year'))} else true end "
        f"when {type_}::oid = {_TEXTS} or {_based_on(_TEXTS, type_)} "
        f"then case when {by_code_point} then true else {fails(of)} end "
        f"when {_based_on(_PLAIN, type_)} then true else {fails(quote_literal('type'))} end"
    )


def _based_on(types: str, type_: str) -> str:
    """Whether a type is a domain of one of ``types``; SQL."""
    return f"coalesce((select t.typbasetype = {types} from pg_catalog.pg_type t where t.oid = {type_}), false)"


def refusal(error: BaseException, shard: str) -> PgfleetError | None:
    """What is to be raised instead of ``error``, where it is a condition's."""
    if not isinstance(error, asyncpg.InvalidTextRepresentationError) or _MARK not in (said := str(error)):
        return None
    what, _, told = said[said.index(_MARK) + len(_MARK) :].strip().partition("|")
    column, type_, why, _ = told.rsplit("|", 3)  # what is behind are quotes of the server's language
    raised = CannotCombine if what == "combine" else CannotMerge
    if why in ("type", "year"):
        said = f"is of type {type_}, whose order only PostgreSQL knows"
        if why == "year":
            said = "holds intervals of a year or more, and how many days that is only PostgreSQL knows"
        return raised(f"column {column} {said}", hint=_hint(column, type_, combine=what == "combine"))
    collated = f'{column} collate "C"'
    return raised(
        f"{shard} sorts otherwise than by code point: column {column}", seen=[f"its collation: {why}"],
        hint=f"min({collated})" if what == "combine" else f"order_by='{collated}'",
    )  # fmt: skip


def _hint(column: str, type_: str, *, combine: bool) -> str:
    """An expression of a simple type to select instead."""
    of = "x" if combine else column  # what is combined is not known by the name of the result
    name = type_.rpartition(".")[2].strip('"')
    simple = {"json": f"{of}->>'…'", "jsonb": f"{of}->>'…'", "money": f"{of}::numeric", "citext": f"lower({of}::text)",
              "interval": f"extract(epoch from {of})"}.get(name, f"{of}::text")  # fmt: skip
    enum = f"array_position(enum_range({of}), {of})"
    if combine:
        return f"min({simple}) as {column}" + (f"; of an enum: min({enum})" if simple == f"{of}::text" else "")
    said = f"select {simple} as {column}_2, and order by that"
    return said + (f"; of an enum: {enum}" if simple == f"{of}::text" else "")
