"""What a shard owns is what the map says, and while a map is changed no key is ever owned by two shards, wherever it stops."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgfleet.errors import PlacementError
from pgfleet.plan.ownership import Held, after, release, settle, superseded
from pgfleet.render.ownership import digest, functions, literal, owns_function, placed_rows
from pgfleet.routing.hashing import bucket, key_text
from pgfleet.routing.ownership import ALL, Change, Owned, change, ownership, same_map, succeeding
from pgfleet.routing.placement import Hashed, Placement, TablePlacement
from pgfleet.spec.load import load

SHARDS = ("a", "b", "c")
KEYS = ("PMP", "AWS", "", "it's", "back\\slash", "7", "Größe", "x:y", "$owned$", "\n")

keys = st.sampled_from(KEYS) | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
overs = st.lists(st.sampled_from(SHARDS), min_size=1, max_size=3, unique=True).map(tuple)
spreads = st.builds(Hashed, st.sampled_from([1, 3, 64]), overs, st.sampled_from(["id", "author"]))


@st.composite
def rules(draw: st.DrawFn) -> TablePlacement:
    listed = draw(st.dictionaries(keys, st.sampled_from(SHARDS), max_size=12))
    spread = draw(st.dictionaries(keys.filter(lambda key: key not in listed), spreads, max_size=2))
    elsewhere = draw(st.none() | st.builds(Hashed, st.sampled_from([1, 3, 64]), overs))
    return TablePlacement("subject", listed, spread, elsewhere)


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    """Over :data:`SHARDS`: one or two tables, and one that follows the first by a key column of its own."""
    tables = {"q": draw(rules())}
    if draw(st.booleans()):
        tables["u"] = draw(rules())
    return Placement(tables, {"answers": "q"}, {"answers": "topic"})


def owner(placement: Placement, table: str, key: str, second: str) -> str | None:
    try:
        return placement.shard(table, key, second).shard
    except PlacementError:
        return None


def owns(owned: Owned | None, key: str, second: str) -> bool:
    """As the functions of a shard say it."""
    share = owned.share(key) if owned is not None else None
    return share is not None and bucket(second if share.column else key, share.buckets) % share.step in share.at


@given(placements(), keys, st.integers())
def test_every_row_has_the_owner_that_the_map_says(placement: Placement, key: str, second: int) -> None:
    for table in ("q", "answers"):
        owners = [shard for shard in SHARDS if owns(ownership(placement, shard)[table], key, key_text(second))]
        there = owner(placement, table, key, str(second))
        assert owners == ([there] if there is not None else [])


@given(placements(), placements(), keys, st.integers(0, 9))
def test_a_change_that_is_none_changes_no_owner(old: Placement, new: Placement, key: str, second: int) -> None:
    for shard in SHARDS:
        before, after = ownership(old, shard), ownership(new, shard)
        changed = change(before, after)
        for table in before.keys() & after.keys():
            was, now = (owns(each[table], key, str(second)) for each in (before, after))
            assert not (was and not now) or (changed.loses and changed.differs)
            assert not (now and not was) or (changed.gains and changed.differs)


@given(placements())
def test_the_same_map_changes_nothing(placement: Placement) -> None:
    again = Placement.from_json(placement.to_json())
    for shard in SHARDS:
        changed = change(ownership(placement, shard), ownership(again, shard))
        assert changed == Change(loses=False, gains=False, differs=False)
        assert digest([ownership(placement, shard)]) == digest([ownership(again, shard)])


def test_a_key_that_moves_between_others_is_no_change() -> None:
    old = Placement({"q": TablePlacement("k", {"x": "a", "y": "b"}, {}, None)})
    new = Placement({"q": TablePlacement("k", {"x": "a", "y": "c"}, {}, None)})
    assert not change(ownership(old, "a"), ownership(new, "a")).differs
    assert change(ownership(old, "b"), ownership(new, "b")).loses
    assert change(ownership(old, "c"), ownership(new, "c")).gains


def test_a_key_that_is_listed_where_its_bucket_was_is_no_change() -> None:
    elsewhere = Hashed(64, ("a", "b"))
    place = ("a", "b")[bucket("x", 64) % 2]
    old = Placement({"q": TablePlacement("k", {}, {}, elsewhere)})
    new = Placement({"q": TablePlacement("k", {"x": place}, {}, elsewhere)})
    for shard in SHARDS:
        assert not change(ownership(old, shard), ownership(new, shard)).differs


# -- turns -------------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(st.tuples(placements(), st.integers(0, 7), st.permutations(SHARDS)), min_size=1, max_size=4),
    st.lists(keys, max_size=4),
)
def test_no_key_has_two_owners_wherever_changes_stop(changes: list[tuple[Placement, int, list[str]]], others: list[str]) -> None:
    """Each change is done as far as its number of turns, in some order of the shards; the last one wholly."""
    held: dict[str, Held | None] = dict.fromkeys(SHARDS)
    recorded: list[Placement] = []

    def judge() -> None:
        maps = [[ownership(each, shard) for each in there.maps] for shard, there in held.items() if there is not None]
        for table in ("q", "u", "answers"):
            for key in (*KEYS, *others):
                for second in ("1", "2"):
                    assert sum(all(owns(each.get(table), key, second) for each in of_shard) for of_shard in maps) <= 1

    for number, (wanted, turns, order) in enumerate(changes):
        known = [each for one in held.values() if one is not None for each in one.maps] + recorded
        placement = succeeding(wanted, known)
        left = turns if number < len(changes) - 1 else 99
        for stage in (release, settle):
            for shard in order:
                assert not superseded(held[shard], placement)
                turn = stage(held[shard], placement, shard)
                if turn is None or not left:
                    continue
                left -= 1
                before = held[shard]
                held[shard] = after(turn)
                judge()
                if before is not None:
                    assert turn.exclusive == (before.since != turn.since or len(before.maps) != len(turn.maps))
        if left:
            recorded = [placement]
    for shard in SHARDS:
        there = held[shard]
        assert there is not None
        assert len(there.maps) == 1
        assert same_map(there.newest, changes[-1][0])
        assert settle(there, there.newest, shard) is None


@given(placements(), placements())
def test_statements_of_an_older_map_are_refused_where_ownership_changed_and_only_there(old: Placement, new: Placement) -> None:
    new = replace(new, epoch=2)
    for shard in SHARDS:
        turn = settle(None, old, shard)
        assert turn is not None
        held = after(turn)
        for stage in (release, settle):
            if (turn := stage(held, new, shard)) is not None:
                held = after(turn)
        assert held.since == (2 if change(ownership(old, shard), ownership(new, shard)).differs else 1)


def test_an_older_map_and_another_of_the_same_epoch_are_refused() -> None:
    one = Placement({"q": TablePlacement("k", {"x": "a"}, {}, None)}, epoch=3)
    other = Placement({"q": TablePlacement("k", {"x": "b"}, {}, None)}, epoch=3)
    held = Held((one,), 3, "")
    assert not superseded(None, one)
    assert not superseded(held, one)
    assert not superseded(held, replace(other, epoch=4))
    assert "another map" in superseded(held, other)
    assert "newer than 2" in superseded(held, replace(one, epoch=2))


def test_epochs_follow_every_map_that_was_given_out() -> None:
    one = Placement({"q": TablePlacement("k", {"x": "a"}, {}, None)})
    other = Placement({"q": TablePlacement("k", {"x": "b"}, {}, None)})
    assert succeeding(one, []).epoch == 1
    assert succeeding(one, [replace(one, epoch=5), replace(other, epoch=4)]).epoch == 5
    assert succeeding(one, [replace(one, epoch=5), replace(other, epoch=6)]).epoch == 7


# -- text --------------------------------------------------------------------------------------------------------------------


def test_names_of_functions_fit_and_differ() -> None:
    names = [owns_function("q"), owns_function("t" * 63), owns_function("t" * 62 + "u")]
    assert names[0] == "owns_q"
    assert len(set(names)) == 3
    assert max(map(len, names)) <= 63


@pytest.mark.parametrize(("text", "quoted"), [("a", "'a'"), ("it's", "'it''s'"), ("a\\'b", r"E'a\\''b'"), ("", "''")])
def test_texts_are_quoted(text: str, quoted: str) -> None:
    assert literal(text) == quoted


def test_a_body_never_ends_its_own_quotes() -> None:
    placement = Placement({"q": TablePlacement("k", {"$owned$": "a", "$owned1$": "a"}, {}, None)})
    assert "as $owned2$" in functions([ownership(placement, "a")])


def test_columns_of_every_map_in_force_are_asked_for() -> None:
    old = Placement({"q": TablePlacement("k", {}, {"x": Hashed(4, ("a", "b"), "id")}, None)})
    new = Placement({"q": TablePlacement("k", {}, {"x": Hashed(4, ("a", "b"), "author")}, None)})
    assert placed_rows([ownership(old, "a"), ownership(new, "a")]) == [("q", "k", ["author", "id"], "owns_q")]


def test_a_shard_that_holds_all_of_a_table_hashes_nothing() -> None:
    text = "fleet: f\nregions: {us: {}}\nshards: {main: {}}\ntables: {t: {key: id}}\n"
    owned = ownership(Placement.of(load("f", text)), "main")
    assert owned["t"].others == ALL
    assert "sha256" not in functions([owned])
