"""What one shard owns, as the SQL functions that its guards ask (providers/schema/0030_placement.sql has the guards).

Made anew with every map that changes it. Keys stand in the functions as they are: nothing is looked up in a table, so that a
row that is owned costs a comparison, or one SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence

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
    return "\n".join([*(_owns(table, held) for table in held[-1]), _holds(held), *_rights(held[-1])])


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
    """The statements that tell guards which ownership is in force, whatever their snapshot."""
    made = f"create or replace function pgfleet.turn() returns bigint language sql stable return {turn};"
    return f"{made} revoke execute on function pgfleet.turn() from public;"


def _rights(owned: Ownership) -> Iterator[str]:
    """Whoever writes asks ``owns_…`` (it stands in a trigger's condition), whatever default privileges there are; guards, which
    run as their owner, ask ``holds``."""
    yield "revoke execute on function pgfleet.holds(text, text) from public;"
    for table in owned:
        yield f"grant execute on function pgfleet.{quote_identifier(owns_function(table))}(text, jsonb) to public;"


def _owns(table: str, held: Sequence[Ownership]) -> str:
    name = f"pgfleet.{quote_identifier(owns_function(table))}"
    # Of one value, two maps that go by different columns cannot both speak.
    keys = {each[table].key for each in held if table in each}
    if len(keys) > 1:
        return _function(f"{name}(key text, seconds jsonb)", "begin\nreturn false;\nend")
    body = "\n".join(_returns([each.get(table) for each in held], _of_spread))
    return _function(f"{name}(key text, seconds jsonb)", f"begin\n{body}\nend")


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
        lines.append(f"if {_one_of('root', [root])} and {_one_of('relation', names)} then")
        lines += [*_returns([each.get(root) for each in held], lambda _: "true"), "end if;"]
    lines += ["return null;", "end"]
    return _function("pgfleet.holds(relation text, claim text)", "\n".join(lines))


def _returns(held: Sequence[Owned | None], of_spread: Callable[[Share], str]) -> Iterator[str]:
    """Statements that return whether all of ``held`` own ``key``; null or false where not. The rarer is the dearer: what is not
    reached is not even made ready."""
    if len(held) > 1:
        yield "return " + " and ".join(f"({_expression(owned, of_spread)})" for owned in held) + ";"
        return
    *cases, (_, others) = _cases(held[0], of_spread)
    yield from (f"if {condition} then return {said}; end if;" for condition, said in cases)
    yield f"return {others};"


def _expression(owned: Owned | None, of_spread: Callable[[Share], str]) -> str:
    *cases, (_, others) = _cases(owned, of_spread)
    if not cases:
        return others
    return "case " + " ".join(f"when {condition} then {said}" for condition, said in cases) + f" else {others} end"


def _cases(owned: Owned | None, of_spread: Callable[[Share], str]) -> Iterator[tuple[str, str]]:
    """Conditions on ``key``, and what is true of it then; the last is for all other keys."""
    if owned is None:
        yield "", "false"
        return
    here = [key for key, share in owned.named.items() if share is not None and share.whole]
    away = [key for key, share in owned.named.items() if share is None]
    if here:
        yield _among(here), "true"
    if away:
        yield _among(away), "false"
    for key, share in owned.named.items():
        if share is not None and not share.whole:
            yield _one_of(_KEY, [key]), of_spread(share)
    yield "", _bucket(owned.others, _KEY) if owned.others is not None else "false"


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
