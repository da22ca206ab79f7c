"""What one shard owns, as the SQL functions that its guards ask (providers/schema/0030_placement.sql has the guards).

Made anew with every map that changes it. Keys stand in the functions as they are: nothing is looked up in a table, so that a
row that is owned costs a comparison, or one SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

from pgfleet.names import quote_identifier
from pgfleet.routing.hashing import bucket_sql
from pgfleet.routing.ownership import Owned, Ownership, Share

#: PostgreSQL's NAMEDATALEN - 1: longer names are cut off, and two tables' could then be one.
_LONGEST_NAME = 63
#: So many keys are compared one after another; more are looked for in a JSON object, whose keys PostgreSQL keeps sorted.
_FEW = 8
#: Compared as they are, whatever the column's collation would call equal.
_KEY = '(key collate pg_catalog."C")'


def owns_function(table: str) -> str:
    """The name, below schema pgfleet, of the function that says whether a row of ``table`` is owned."""
    name = f"owns_{table}"
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:46]}_{hashlib.sha256(table.encode()).hexdigest()[:16]}"


def functions(held: Sequence[Ownership]) -> str:
    """The functions of a shard that owns what all of ``held`` say at once, as statements.

    One ``owns_TABLE(key, seconds)`` a table, whose ``seconds`` are the row's other columns that decide (an object; a column that
    the table does not have is not in it), and ``holds(relation, claim)``: whether any row of a claimed key is; null where
    the claim (``TABLE:KEY``) is about other tables.

    :param held: at least one. Several, while a shard has let go of keys and waits for others to do so.
    """
    return "\n".join([*(_owns(table, held) for table in held[-1]), _holds(held)])


def placed_rows(held: Sequence[Ownership]) -> list[tuple[str, str, list[str], str]]:
    """The rows of ``pgfleet.placed``: table, its key column, the other columns that its functions may ask for, its function."""
    rows = []
    for table, owned in held[-1].items():
        seconds = sorted({column for each in held if table in each for column in each[table].seconds})
        rows.append((table, owned.key, seconds, owns_function(table)))
    return rows


def digest(held: Sequence[Ownership]) -> str:
    """Changes when :func:`functions` or :func:`placed_rows` do."""
    return hashlib.sha256(repr((functions(held), placed_rows(held))).encode()).hexdigest()[:16]


def turn_function(turn: int) -> str:
    """The statement that tells guards which ownership is in force, whatever their snapshot."""
    return f"create or replace function pgfleet.turn() returns bigint language sql stable return {turn};"


def _owns(table: str, held: Sequence[Ownership]) -> str:
    body = " and ".join(f"({_row(each.get(table))})" for each in held) if len(held) > 1 else _row(held[0].get(table))
    name = f"pgfleet.{quote_identifier(owns_function(table))}"
    return _function(f"{name}(key text, seconds jsonb)", f"begin\nreturn {body};\nend")


def _holds(held: Sequence[Ownership]) -> str:
    tables: dict[str, list[str]] = {}
    for table, owned in held[-1].items():
        tables.setdefault(owned.root, []).append(table)
    lines = [
        "declare",
        "root constant pg_catalog.text := pg_catalog.split_part(claim, ':', 1);",
        "key constant pg_catalog.text := pg_catalog.substr(claim, pg_catalog.strpos(claim, ':') operator(pg_catalog.+) 1);",
        "begin",
    ]
    for root, names in tables.items():
        each = [f"({_any(ownership.get(root))})" for ownership in held]
        lines.append(f"if {_one_of('root', [root])} and {_one_of('relation', names)} then return {' and '.join(each)}; end if;")
    lines += ["return null;", "end"]
    return _function("pgfleet.holds(relation text, claim text)", "\n".join(lines))


def _function(head: str, body: str) -> str:
    """PL/pgSQL keeps the plan of an expression in the session; an SQL function's is made anew for each statement, which costs
    more than all the rest where keys are many or hashed. No search path is set, which would cost as much again: every name
    is qualified instead."""
    tag = next(tag for tag in _tags() if f"${tag}$" not in body)
    return f"create or replace function {head} returns boolean language plpgsql stable parallel safe as ${tag}$\n{body}\n${tag}$;"


def _tags() -> Iterator[str]:
    number = 0
    while True:
        yield f"owned{number or ''}"
        number += 1


def _row(owned: Owned | None) -> str:
    """Whether the row is owned; null or false where not."""
    if owned is None:
        return "false"
    return _cases(owned, {key: _of_spread(share) for key, share in owned.named.items() if share is not None and not share.whole})


def _any(owned: Owned | None) -> str:
    """Whether any row of the key is owned."""
    if owned is None:
        return "false"
    return _cases(owned, {key: "true" for key, share in owned.named.items() if share is not None and not share.whole})


def _cases(owned: Owned, spread: dict[str, str]) -> str:
    here = [key for key, share in owned.named.items() if share is not None and share.whole]
    away = [key for key, share in owned.named.items() if share is None]
    others = _bucket(owned.others, _KEY) if owned.others is not None else "false"
    lines = []
    if here:
        lines.append(f"when {_among(here)} then true")
    if away:
        lines.append(f"when {_among(away)} then false")
    lines += [f"when {_one_of(_KEY, [key])} then {said}" for key, said in spread.items()]
    if not lines:
        return others
    return "case\n" + "\n".join(lines) + f"\nelse {others} end"


def _of_spread(share: Share) -> str:
    column = literal(share.column or "")
    of_it = _bucket(share, f"pg_catalog.jsonb_object_field_text(seconds, {column})")
    return f"case when pg_catalog.jsonb_exists(seconds, {column}) then {of_it} else true end"


def _bucket(share: Share, expression: str) -> str:
    if share.whole:
        return f"{expression} is not null"
    at = ",".join(str(number) for number in sorted(share.at))
    rest = f"pg_catalog.mod({bucket_sql(expression, share.buckets)}, {share.step})"
    return f"{rest} operator(pg_catalog.=) any ('{{{at}}}'::pg_catalog.int4[])"


def _among(keys: Sequence[str]) -> str:
    if len(keys) <= _FEW:
        return _one_of(_KEY, keys)
    document = json.dumps(dict.fromkeys(keys, 0), ensure_ascii=False, separators=(",", ":"))
    return f"pg_catalog.jsonb_exists({literal(document)}::pg_catalog.jsonb, key)"


def _one_of(expression: str, texts: Sequence[str]) -> str:
    if len(texts) == 1:
        return f"{expression} operator(pg_catalog.=) {literal(texts[0])}"
    listed = ", ".join(literal(text) for text in texts)
    return f"{expression} operator(pg_catalog.=) any (array[{listed}]::pg_catalog.text[])"


def literal(text: str) -> str:
    """``text`` as an SQL string, whatever ``standard_conforming_strings`` is (as PostgreSQL's own quote_literal writes it)."""
    quoted = text.replace("'", "''")
    return "E'" + quoted.replace("\\", "\\\\") + "'" if "\\" in text else f"'{quoted}'"
