"""Statements made at random, in which a call stands at one place or at none."""

from __future__ import annotations

from hypothesis import strategies as st

#: The call of something that touches; with columns as arguments it looks like a list of columns.
CALLS = ["f (a, b)", "f(a,b)", "f (a)", "public.f (a, b)", '"f" (a, b)', "F (A, B)", "f /* so */ (a, b)"]

#: Whole statements: a dot is replaced by an expression, a hash by what stands in FROM, an at-sign by a query.
_STATEMENTS = [
    "select . from #",
    "select ., . as x from #, # where . and (.) = (.)",
    "with q (a, b) as (@), r (a, b) as (@) select . from q, r",
    "with recursive q as materialized (@), r (a, b) as not materialized (@) @",
    "with q (a, b) as (@) insert into s.t (a, b) @",
    "insert into s.t (a, b) values (., .), (a, b)",
    "insert into t as x (a, b) @ on conflict (a) do update set b = . where .",
    "insert into t @ returning ., .",
    "update t set a = ., b = . from # where .",
    "update s.t x set (a, b) = (@)",
    "delete from t using # where .",
    "merge into t using (@) v (a, b) on . when matched and . then update set a = .",
    "merge into t using # on . when not matched then insert (a, b) values (., .)",
    "select . from # join # on . left join # on . where . order by ., . limit . offset .",
    "select . from # group by ., . having . window w as (partition by . order by .)",
    "select . from # fetch first . rows only",
    "@ union all @ except (@)",
    "values (., .), (., .)",
]
_EXPRESSIONS = [
    "1",
    "a",
    "x.a",
    "(a)",
    "(a, b)",
    "lower(.)",
    ". + .",
    "(.) operator(pg_catalog.+) .",
    "operator(pg_catalog.-) .",
    ".::numeric(10, 2)",
    "a at time zone .",
    "extract(epoch from .)",
    "a is distinct from .",
    "case when . then . else . end",
    "(@)",
    "exists (@)",
    "a in (@)",
    "a in (., .)",
    "count(.) filter (where .)",
    "count(.) over (partition by . order by .)",
    "array[., .]",
    "row (., .)",
    "cast(. as text)",
    "coalesce(., .)",
    "not .",
    "a between . and .",
    "a like . escape .",
    "substring(a from . for .)",
    "trim(both from .)",
    'a collate "C"',
    "xmlroot(a, version .)",
]
_FROM = [
    "t",
    "s.t",
    "only t",
    "t x",
    "s.t x (a, b)",
    "t as x (a, b)",
    "(@) v (a, b)",
    "(@) as v",
    "(values (., .)) v (a, b)",
    "lateral (@) v (a)",
    "generate_series(., .) g (a)",
    "generate_series(., .) with ordinality g (a, b)",
    "lateral unnest(.) as g (a)",
    "t cross join #",
    "(t join s.t y using (a, b)) z (a, b)",
    "unnest(., .) g (a), #",
    "unnest(.) as g (a int)",
    "t tablesample system (1)",
]
_QUERIES = ["select .", "select ., . from #", "select . from # where .", "values (., .)", "table t"]
_LEAVES = {".": "a", "#": "t", "@": "select a"}


@st.composite
def statements(draw: st.DrawFn, call: str | None = None) -> str:
    """:param call: put where an expression, or what is read from, may stand; None: nowhere."""
    text = draw(st.sampled_from(_STATEMENTS))
    parts = {".": st.sampled_from(_EXPRESSIONS), "#": st.sampled_from(_FROM), "@": st.sampled_from(_QUERIES)}
    for _ in range(draw(st.integers(0, 8))):
        holes = [at for at, sign in enumerate(text) if _is_hole(text, at)]
        if not holes:
            break
        at = draw(st.sampled_from(holes))
        text = text[:at] + draw(parts[text[at]]) + text[at + 1 :]
    holes = [at for at, sign in enumerate(text) if _is_hole(text, at)]
    chosen = draw(st.sampled_from([at for at in holes if text[at] != "@"] or [-1])) if call is not None and holes else -1
    if chosen >= 0 and draw(st.booleans()) and text[chosen] == "#":
        call = f"{call} v (a, b)"
    if chosen < 0 and call is not None:
        return f"select {call} from ({'select 1' if text.startswith('with') else 'select 2'}) v (a)"
    pieces = [(str(call) if at == chosen else _LEAVES[sign]) if at in set(holes) else sign for at, sign in enumerate(text)]
    return "".join(pieces)


def _is_hole(text: str, at: int) -> bool:
    """A dot of a name, or in a number, is none."""
    if text[at] in "#@":
        return True
    return text[at] == "." and not (at > 0 and text[at - 1].isalnum()) and not (at + 1 < len(text) and text[at + 1].isalnum())
