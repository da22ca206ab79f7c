"""A folder of migrations: what is wrong with it is told at once, and what is due on a shard follows from its
records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.errors import MigrationFilesWrong
from pgfleet.plan.migrations import Applied, Migration, due, read_migrations
from pgfleet.plan.statements import place, split

TABLES = ("questions", "users")


def read(**files: str) -> tuple[Migration, ...]:
    return read_migrations("schema", {f"{name.lstrip('_')}.sql": text.encode() for name, text in files.items()}, TABLES)


def codes(**files: str) -> list[str]:
    with pytest.raises(MigrationFilesWrong) as caught:
        read(**files)
    return [f"{d.code}@{d.position.line}:{d.position.column}" for d in caught.value.diagnostics]


def test_files_come_in_the_order_of_their_numbers() -> None:
    found = read(_0002_b="select 2", _0001_a="-- tables: users, questions\n\nselect 1;")
    assert [(m.number, m.file, m.tables, m.transaction) for m in found] == [
        (1, "0001_a.sql", ("users", "questions"), True),
        (2, "0002_b.sql", (), True),
    ]


def test_the_header_ends_where_sql_begins() -> None:
    [migration] = read(_0001_a="select 1;\n-- tables: nothing\n-- pgfleet: perhaps\n")
    assert migration.tables == ()


def test_the_header_may_stand_among_other_comments() -> None:
    [migration] = read(
        _0001_a="/* Licence: /* such */\n-- tables: questions\n*/ -- tables: users\r\n\n-- A remark: of users\nselect 1"
    )
    assert migration.tables == ("users",)
    [migration] = read(_0001_a="/* never ends\n-- tables: questions\n")
    assert migration.tables == ()


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("-- table: users", "-- tables: users"),
        ("-- Tables: users", "-- tables: users"),
        ("--tables = users", "-- tables: users"),
        ("--- tables: users", "-- tables: users"),
        ("-- PGFLEET: no-transaction", "-- pgfleet: no-transaction"),
        ("-- pg_fleet:", "-- pgfleet:"),
    ],
)
def test_what_is_almost_a_header_is_no_remark(line: str, hint: str) -> None:
    with pytest.raises(MigrationFilesWrong) as caught:
        read(_0001_a=f"/* */\n  {line}\nselect 1")
    [found] = caught.value.diagnostics
    assert (found.code, found.position.line, found.position.column, found.hint) == ("PGF-M112", 2, 3, hint)
    [migration] = read(_0001_a=f"select 1;\n{line}")
    assert migration.tables == (), "only at the head"


def test_everything_that_is_wrong_is_told_at_once() -> None:
    assert codes(
        _0001_a="-- tables: question, users\n--pgfleet: no-transactions\n",
        _0001_b="",
        _0004_c="create table t ();\n  commit;\ncopy t from stdin;",
        Users="",
    ) == [
        "PGF-M104@1:1", "PGF-M104@1:1", "PGF-M105@1:12", "PGF-M106@2:12", "PGF-M103@1:1", "PGF-M107@2:3",
        "PGF-M108@3:1", "PGF-M102@1:1",
    ]  # fmt: skip


def test_a_folder_without_migrations_is_refused() -> None:
    assert codes() == ["PGF-M101@1:1"]


def test_bytes_that_are_not_text_are_refused() -> None:
    with pytest.raises(MigrationFilesWrong, match="not UTF-8"):
        read_migrations("schema", {"0001_a.sql": b"select '\xff'"}, TABLES)


@pytest.mark.parametrize(
    "statement",
    [
        "create index concurrently if not exists i on questions (id)",
        "CREATE UNIQUE INDEX /* x */ CONCURRENTLY IF NOT EXISTS i ON questions (id)",
        "vacuum (analyze) questions",
        "reindex index concurrently i",
        "alter table questions detach partition p concurrently",
        "drop index concurrently if exists i",
    ],
)
def test_what_cannot_run_in_a_transaction_needs_a_file_without_one(statement: str) -> None:
    assert codes(_0001_a=f"{statement};") == ["PGF-M110@1:1"]
    assert not read(_0001_a=f"-- pgfleet: no-transaction\n{statement};")[0].transaction


@pytest.mark.parametrize(
    ("statement", "again"),
    [
        ("create index concurrently i on questions (id)", False),
        ("create index concurrently if not exists i on questions (id)", True),
        ("drop index concurrently i", False),
        ("alter type mood add value 'so-so'", False),
        ("alter type mood add value if not exists 'so-so'", True),
        ("alter table questions alter column stem set statistics 1000", True),
        ("create or replace view v as select 1", True),
        ("vacuum questions", True),
    ],
)
def test_without_a_transaction_a_statement_must_be_repeatable(statement: str, again: bool) -> None:
    text = f"-- pgfleet: no-transaction\n{statement}"
    if again:
        assert read(_0001_a=text)
    else:
        assert codes(_0001_a=text) == ["PGF-M109@2:1"]


FILES = read(_0001_a="select 1", _0002_b="-- tables: users\nselect 2", _0003_c="select 3")
SHARDS = {"questions": ("stem",), "users": ("users-eu",)}


def record(number: int, *, finished: bool = True, **other: str) -> Applied:
    migration = FILES[number - 1]
    return Applied(number, other.get("file", migration.file), other.get("sha256", migration.sha256), finished)


def numbers(shard: str, *applied: Applied) -> list[int]:
    files, clashes = due(FILES, shard, SHARDS, applied)
    assert not clashes
    return [m.number for m in files]


def test_a_shard_is_given_the_files_of_the_tables_it_holds() -> None:
    assert numbers("stem") == [1, 3]
    assert numbers("users-eu") == [1, 2, 3]


def test_what_was_applied_is_not_due_again() -> None:
    assert numbers("users-eu", record(1), record(2)) == [3]
    assert numbers("users-eu", record(1), record(2), record(3)) == []


def test_a_shard_that_holds_a_table_since_today_is_given_its_older_files() -> None:
    assert numbers("users-eu", record(1), record(3)) == [2]


def test_what_was_begun_and_not_ended_is_due_even_if_it_was_mended() -> None:
    assert numbers("stem", record(1, finished=False), record(3)) == [1]
    assert numbers("stem", record(1, finished=False, sha256="0"), record(3)) == [1]


@pytest.mark.parametrize(
    ("applied", "why"),
    [
        (record(1, sha256="0"), "0001_a.sql was changed after it had been applied to stem"),
        (record(1, file="0001_z.sql"), "number 0001 was 0001_z.sql on stem, it is 0001_a.sql now"),
        (Applied(9, "0009_z.sql", "0", True), "0009_z.sql was applied to stem and is not in the folder"),
    ],
)
def test_a_record_that_contradicts_the_folder_is_told(applied: Applied, why: str) -> None:
    assert [clash.why for clash in due(FILES, "stem", SHARDS, [applied])[1]] == [why]


def texts(sql: str) -> list[str]:
    return [statement.text for statement in split(sql)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("", []),
        (" ; ;; -- nothing\n/* ; /* ; */ ; */", []),
        ("select 1; select 2", ["select 1", "select 2"]),
        ("select ';', E'\\';', \";\" ; x", ["select ';', E'\\';', \";\"", "x"]),
        ("select 'it''s;'; y", ["select 'it''s;'", "y"]),
        ("do $$ begin; end $$; do $a$ ; $$ ; $a$", ["do $$ begin; end $$", "do $a$ ; $$ ; $a$"]),
        ("select a$b$c; select 1", ["select a$b$c", "select 1"]),
        ("create rule r as on insert to t do (a; b); c", ["create rule r as on insert to t do (a; b)", "c"]),
        (
            "create or replace function f() returns int begin atomic select case when true then 1 end; select 2; end; z",
            [
                "create or replace function f() returns int begin atomic select case when true then 1 end; select 2; end",
                "z",
            ],
        ),
        ("-- first\n/* and */ select 1 -- then; ;\n;", ["select 1"]),
        ("select 'without an end; ;", ["select 'without an end; ;"]),
        ("$$ without; an end", ["$$ without; an end"]),
    ],
)
def test_semicolons_end_statements_only_where_psql_says_so(sql: str, expected: list[str]) -> None:
    assert texts(sql) == expected


PIECES = [
    "'", '"', "$$", "$a$", "--", "/*", "*/", ";", "(", ")", "\n", " ", "E'", "\\", "begin", "create function ", "end", "x",
]  # fmt: skip
SOUP = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@given(SOUP)
def test_every_statement_is_where_it_says_it_is(sql: str) -> None:
    end = 0
    for statement in split(sql):
        assert sql[statement.offset :].startswith(statement.text)
        assert statement.offset >= end, "they do not overlap"
        assert statement.tokens
        assert statement.text == statement.text.lstrip()
        end = statement.offset + len(statement.text)


@given(SOUP, st.integers(min_value=0, max_value=100))
def test_place_counts_lines_and_columns_from_one(sql: str, offset: int) -> None:
    offset = min(offset, len(sql))
    line, column = place(sql, offset)
    lines = sql.split("\n")
    assert sum(len(text) + 1 for text in lines[: line - 1]) + column - 1 == offset
