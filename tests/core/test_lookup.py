"""What a lookup's value is, where its entry lives, and what an entry means."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.errors import PlacementError
from pgfleet.routing.lookup import LONGEST, Entry, Undecided, Value, address, addresses, by_columns
from pgfleet.routing.placement import Placement
from pgfleet.spec.load import load

TEXT = """\
fleet: f
regions: {us: {}}
shards: {a: {}, b: {}, c: {}}
tables:
  users:
    key: region
    place: {a: [us], b: [eu], c: [apac]}
    lookups: {email: [email], number: {columns: [id]}, name: {columns: [first, last], over: [c]}}
  plain: {key: id, elsewhere: {hash: 8, over: [a]}}
"""
PLACEMENT = Placement.of(load("f", TEXT))
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\x1f"), max_size=50)
WRITE, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)


@given(texts, texts)
def test_an_entry_lives_where_placement_hashes_its_values(first: str, last: str) -> None:
    found = address(PLACEMENT, "users", "name", (first, last))
    assert found is not None
    assert (found.value, found.shard) == (f"{first}\x1f{last}", PLACEMENT.lookup("users", "name", first, last).shard)
    one = address(PLACEMENT, "users", "email", first)
    assert one == address(PLACEMENT, "users", "email", [first])
    assert one is not None
    assert (one.value, one.shard) == (first, PLACEMENT.lookup("users", "email", first).shard)


@given(texts, texts, texts, texts)
def test_two_pairs_that_differ_have_two_values(a: str, b: str, c: str, d: str) -> None:
    one, other = address(PLACEMENT, "users", "name", (a, b)), address(PLACEMENT, "users", "name", (c, d))
    assert (one == other) == ((a, b) == (c, d))


def test_a_value_with_null_is_not_claimed() -> None:
    assert address(PLACEMENT, "users", "email", None) is None
    assert address(PLACEMENT, "users", "name", ("Ada", None)) is None
    assert addresses(PLACEMENT, "users", {"email": None, "number": 7}) == (address(PLACEMENT, "users", "number", 7),)


def test_all_writes_claim_in_the_same_order() -> None:
    given: dict[str, Value] = {"number": 7, "email": "z@x", "name": ("Ada", "L")}
    found = addresses(PLACEMENT, "users", given)
    assert list(found) == sorted(found)
    assert found == addresses(PLACEMENT, "users", dict(reversed(list(given.items()))))
    assert [each.lookup for each in found] == ["email", "name", "number"]


@pytest.mark.parametrize(
    ("lookup", "value", "said"),
    [
        ("phone", "1", "no lookup phone"),
        ("name", "Ada", "is by first, last; 1 values"),
        ("name", ("Ada", "L", "x"), "3 values"),
        ("email", 1.5, "float"),
        ("email", True, "bool"),
        ("email", b"x", "bytes"),
        ("email", "a\0b", "NUL"),
        ("name", ("a\x1fb", "c"), r"U\+001F"),
        ("email", "é" * (LONGEST // 2 + 1), "longer than 2,000 bytes"),
    ],
)
def test_what_is_no_value_is_refused(lookup: str, value: object, said: str) -> None:
    with pytest.raises(PlacementError, match=said):
        address(PLACEMENT, "users", lookup, value)  # type: ignore[arg-type]


def test_a_single_column_may_hold_the_separator() -> None:
    assert address(PLACEMENT, "users", "email", "a\x1fb") is not None


def test_a_lookup_is_meant_by_its_name_or_by_its_columns() -> None:
    assert by_columns(PLACEMENT, "users", {"email": "a@x"}) == ("email", "a@x")
    assert by_columns(PLACEMENT, "users", {"name": ("Ada", "L")}) == ("name", ("Ada", "L"))
    assert by_columns(PLACEMENT, "users", {"last": "L", "first": "Ada"}) == ("name", ["Ada", "L"])
    assert by_columns(PLACEMENT, "users", {"id": 7}) == ("number", [7])


@pytest.mark.parametrize("given_", [{}, {"phone": 1}, {"first": "Ada"}, {"email": "a", "id": 1}, {"first": ["Ada"], "last": "L"}])
def test_keywords_that_mean_no_lookup_are_refused(given_: dict[str, object]) -> None:
    with pytest.raises(PlacementError):
        by_columns(PLACEMENT, "users", given_)  # type: ignore[arg-type]
    with pytest.raises(PlacementError, match="plain"):
        by_columns(PLACEMENT, "plain", {"id": 1})


def test_what_an_entry_means() -> None:
    claimed = Entry("us", None, "a", WRITE, False, None, None, 0.0)
    assert claimed.undecided == Undecided(WRITE, "a")
    assert [claimed.holds(outcome) for outcome in (True, False, None)] == [True, False, False]
    held = Entry("us", None, "a", WRITE, True, None, None, 0.0)
    assert held.undecided is None
    assert held.holds(None)
    leaving = Entry("us", None, "a", WRITE, True, OTHER, "b", 0.0)
    assert leaving.undecided == Undecided(OTHER, "b")
    assert [leaving.holds(outcome) for outcome in (True, False, None)] == [False, True, True]
    assert not leaving.claimed
    vacant = Entry("us", None, "a", WRITE, False, WRITE, "a", 0.0)
    assert vacant.undecided == Undecided(WRITE, "a")
    assert not any(vacant.holds(outcome) for outcome in (True, False, None))
    assert not vacant.claimed
