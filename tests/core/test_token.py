"""Tokens: equal ones have equal texts, they only grow, and what was changed on its way is refused."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.errors import TokenUnreadable
from pgfleet.routing.token import TIMELINES, Position, Token

plain = st.builds(Position, st.integers(1, 9), st.integers(0, 2**63), st.integers(0, 2**40), st.integers(0, 2**64 - 1))
positions = plain | plain.flatmap(lambda p: st.integers(0, max(0, p.lsn - 1)).map(lambda within: replace(p, within=within)))
UNREAD = Position(0, 0)
shards = st.sampled_from(["stem", "humanities", "users-eu"])
tokens = st.lists(st.tuples(shards, positions | st.just(UNREAD)), max_size=12).map(lambda entries: _of(entries))


def _of(entries: list[tuple[str, Position]]) -> Token:
    token = Token()
    for shard, position in entries:
        token = token.with_position(shard, position)
    return token


@given(tokens)
def test_text_and_back(token: Token) -> None:
    text = str(token)
    assert Token.parse(text) == token
    assert text.startswith("pgf2.")
    assert all(character.isalnum() or character in "._-" for character in text), "fits a header, a cookie and a URL"


@given(tokens, tokens)
def test_merging_forgets_nothing(one: Token, other: Token) -> None:
    both = one.merged(other)
    for shard, position in [*one, *other]:
        kept = [
            p for p in both.of(shard) if (p.system, p.timeline, p.begin) == (position.system, position.timeline, position.begin)
        ]
        assert kept == [] or (kept[0].lsn >= position.lsn and kept[0].last >= position.last)
        assert kept or len(both.of(shard)) >= TIMELINES
        assert position != UNREAD or UNREAD in both.of(shard), "it may be the newest write of all"


@given(tokens)
def test_a_token_merged_with_itself_is_itself(token: Token) -> None:
    assert token.merged(token) == token


@given(st.text(max_size=60))
def test_anything_else_is_refused(text: str) -> None:
    try:
        Token.parse(text)
    except TokenUnreadable:
        return
    assert str(Token.parse(text)) == text


@given(tokens, st.data())
def test_what_was_changed_on_its_way_is_refused(token: Token, data: st.DataObject) -> None:
    text = str(token.with_position("stem", Position(1, 5)))
    at = data.draw(st.integers(5, len(text) - 2))
    other = data.draw(st.sampled_from("ABCxyz019_-").filter(lambda c: c != text[at]))
    with pytest.raises(TokenUnreadable):
        Token.parse(text[:at] + other + text[at + 1 :])


def test_a_token_of_another_version_is_refused() -> None:
    with pytest.raises(TokenUnreadable, match="pgf3"):
        Token.parse("pgf3.AAAA")


def test_of_two_writes_on_a_timeline_the_later_end_of_both_counts() -> None:
    confirmed, farther = Position(1, 100, within=90), Position(1, 200)
    token = Token().with_position("stem", confirmed)
    assert token.with_position("stem", farther).of("stem") == (farther,), "it may end anywhere before 200"
    assert token.with_position("stem", Position(1, 200, within=150)).of("stem") == (Position(1, 200, within=150),)
    assert token.with_position("stem", Position(1, 95)).of("stem") == (Position(1, 100, within=95),)


def text(version: str, *entries: list[object]) -> str:
    body = json.dumps(entries).encode()
    return f"{version}." + base64.urlsafe_b64encode(zlib.crc32(body).to_bytes(4, "big") + body).decode().rstrip("=")


def test_a_token_of_the_version_before_is_read() -> None:
    assert Token.parse(text("pgf1", ["stem", 77, 3, 10, 500])).of("stem") == (Position(3, 500, 10, 77),)


@pytest.mark.parametrize(
    ("version", "entry"),
    [
        ("pgf1", ["stem", 77, 3, 10, 500, 0]),
        ("pgf2", ["stem", 77, 3, 10, 500]),
        ("pgf2", ["stem", 77, 3, 10, 500, 500]),
        ("pgf2", ["stem", 77, 3, 10, 500, -1]),
        ("pgf2", ["stem", 77, 3, 10, 0, 5]),
    ],
)
def test_what_is_no_position_is_refused(version: str, entry: list[object]) -> None:
    with pytest.raises(TokenUnreadable):
        Token.parse(text(version, entry))


def test_a_position_that_could_not_be_read_is_covered_by_a_later_one() -> None:
    token = Token().with_position("stem", Position(0, 0))
    assert token.of("stem") == (Position(0, 0),)
    assert token.with_position("stem", Position(3, 7)).of("stem") == (Position(3, 7),)


@pytest.mark.parametrize("timelines", [1, TIMELINES, TIMELINES + 3])
def test_a_position_that_could_not_be_read_is_not_forgotten_for_older_ones(timelines: int) -> None:
    """However many failovers the caller has seen: by its place in the order it would be the oldest."""
    token = Token()
    for timeline in range(1, timelines + 1):
        token = token.with_position("stem", Position(timeline, 10 * timeline))
    unread = token.with_position("stem", UNREAD)
    for carried in (
        unread,
        Token.parse(str(unread)),
        token.merged(unread),
        unread.merged(token),
        unread.with_position("other", UNREAD),
    ):
        assert UNREAD in carried.of("stem")
        assert Position(timelines, 10 * timelines) in carried.of("stem")
    assert UNREAD not in unread.with_position("stem", Position(timelines, 10 * timelines)).of("stem")
