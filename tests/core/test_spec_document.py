"""The file as text: scalars of YAML 1.2, positions, and mistakes that end the reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.spec import codes
from pgfleet.spec.document import MAX_DEPTH, read_document, scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("on", "on"),
        ("NO", "NO"),
        ("y", "y"),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("007", "007"),
        ("1_000", "1_000"),
        ("0x1f", "0x1f"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value) or isinstance(value, float)


def test_a_fraction_remembers_how_it_was_written() -> None:
    assert getattr(scalar("1.10"), "text", "") == "1.10"


def test_every_value_and_every_key_has_its_position() -> None:
    document = read_document("f", "fleet: a\nshards:\n  stem: {sync: 1,\n    residency: [us, eu]}\n")
    assert document.root == {"fleet": "a", "shards": {"stem": {"sync": 1, "residency": ["us", "eu"]}}}
    positions = document.positions
    assert str(positions.of("shards", "stem", "sync")) == "f:3:16"
    assert str(positions.key("shards", "stem", "sync")) == "f:3:10"
    assert str(positions.of("shards", "stem", "residency", 1)) == "f:4:21"
    assert str(positions.key("shards", "stem", "residency", 1)) == "f:4:21"
    # Where the file says nothing: the nearest value around it.
    assert str(positions.of("shards", "stem", "home")) == str(positions.of("shards", "stem")) == "f:3:9"
    assert str(positions.of("pools", "max_connections")) == "f:1:1"
    assert positions.says("shards", "stem")
    assert not positions.says("shards", "stem", "home")


def test_quoted_words_are_text() -> None:
    assert read_document("f", "a: '1'\nb: \"true\"\nc: ! 1\n").root == {"a": "1", "b": "true", "c": "1"}


def test_a_key_is_text_whatever_it_looks_like() -> None:
    assert read_document("f", "regions: {no: 1, 1: 2, true: 3}").root == {"regions": {"no": 1, "1": 2, "true": 3}}


def test_duplicate_keys_are_all_told_and_the_first_counts() -> None:
    document = read_document("f", "a: {x: 1}\nb: 1\na: {x: 2, y: 3}\nb: 2\n")
    assert document.root == {"a": {"x": 1}, "b": 1}
    assert [(m.code, str(m.position)) for m in document.mistakes] == [
        (codes.DUPLICATE_KEY, "f:3:1"),
        (codes.DUPLICATE_KEY, "f:4:1"),
    ]
    assert str(document.positions.of("a", "x")) == "f:1:8"
    assert "line 1" in document.mistakes[0].message


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        ("a: [1, 2\nb: 3\n", codes.SYNTAX, "f:2:2"),
        ("a:\n\tb: 1\n", codes.SYNTAX, "f:2:1"),
        ("a: b: c\n", codes.SYNTAX, "f:1:5"),
        ("a: 1\n---\nb: 2\n", codes.SYNTAX, "f:2:1"),
        ("? [a]\n: 1\n", codes.SYNTAX, "f:1:3"),
        ("a: 1\nb: \x01\n", codes.SYNTAX, "f:2:4"),
        ("a: &x 1\nb: *x\n", codes.ALIAS, "f:1:4"),
        ("a: *x\n", codes.ALIAS, "f:1:4"),
        ("a: !!python/object:os.system 1\n", codes.ALIAS, "f:1:4"),
        ("&k a: 1\n", codes.ALIAS, "f:1:1"),
        ("", codes.NOT_A_MAPPING, "f:1:1"),
        ("# nothing\n", codes.NOT_A_MAPPING, "f:1:1"),
        ("- a\n- b\n", codes.NOT_A_MAPPING, "f:1:1"),
        ("just words\n", codes.NOT_A_MAPPING, "f:1:1"),
        ("a: " + "[" * 200 + "]" * 200, codes.TOO_LARGE, f"f:1:{4 + MAX_DEPTH}"),
        ("a: " + "[" * 200_000, codes.TOO_LARGE, f"f:1:{4 + MAX_DEPTH}"),
        ("#" * 1_000_001, codes.TOO_LARGE, "f:1:1"),
        ("a: 1\nb: caf\udce9\n", codes.ENCODING, "f:2:7"),
        ("\udcff\udcfea\0", codes.ENCODING, "f:1:1"),
    ],
)
def test_mistakes_that_end_the_reading(text: str, code: str, where: str) -> None:
    document = read_document("f", text)
    assert [(m.code, str(m.position)) for m in document.mistakes] == [(code, where)]
    assert document.root is None
    assert document.mistakes[0].hint, "every message says what to do"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a: [1, 2\nb: 3\n", "close the { or [ that was opened in line 1, and put a comma between items"),
        ("a: [1,\n", "close the { or [ that was opened before"),
        ('a: "x\nb: 1\n', "close the quotation mark that was opened in line 1"),
        ("a: 'x\n", "close the quotation mark that was opened in line 1"),
        ("a:\n\tb: 1\n", "indent with spaces, not tabs:   expand -t 2 f"),
        ("a: 1\n\tb: 1\n", "indent with spaces, not tabs:   expand -t 2 f"),
        ("a: b: c\n", 'quote text that contains ": ":   a: "b: c"'),
        ("a: 1\n b: 2\n", "begin it in the same column as the keys beside it:   b: 2"),
        ("fleet f\nregions: {}\n", "the line before it lacks a colon:   fleet f:"),
        ("a: @x\n", 'quote text that begins with % @ or `:   "@x"'),
        ("a: !!str x\n", '"x"'),
        ("a: !!seq [x]\n", "leave the tag out"),
        ("a: \x1b[31m\n", 'remove it, or write it inside double quotes:   "\\x1b"'),
        ("caf\udce9: 1\n", "iconv -f WINDOWS-1252 -t UTF-8 f > other.yaml"),
        ("\udcff\udcfea\0", "iconv -f UTF-16 -t UTF-8 f > other.yaml"),
        ("\x7fELF\0\udcff", "pgfleet init other.yaml   writes a good file to compare with"),
        ("}", "pgfleet init other.yaml   writes a good file to compare with"),
    ],
)
def test_a_hint_says_what_to_do(text: str, hint: str) -> None:
    assert [m.hint for m in read_document("f", text).mistakes] == [hint]


@given(st.text(alphabet=st.sampled_from("ab: -[]{},&*!|>'\"#%@`?\n\t\x00\ud7ff\udcff1.é\x85"), max_size=60))
def test_no_text_is_too_strange(text: str) -> None:
    document = read_document("f", text)
    assert (document.root is None) <= bool(document.mistakes)
    lines = text.count("\n") + text.count("\x85") + 1
    for mistake in document.mistakes:
        assert 1 <= mistake.position.line <= lines + 1
        assert mistake.position.column >= 1
        assert mistake.hint
