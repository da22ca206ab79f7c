"""DSNs are read as libpq reads them, or refused; compared with libpq itself."""

from __future__ import annotations

from urllib.parse import quote

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from pgfleet.spec.dsn import PORT as USUAL
from pgfleet.spec.dsn import Dsn, NotADsn, Protection, has_password, parse_dsn, without_password

TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=12)
HOST = st.sampled_from(["db", "db.example", "127.0.0.1", "10.0.0.7", "localhost"])
PORT = st.integers(1, 65535)


@given(host=HOST, port=PORT, user=TEXT, password=TEXT, database=TEXT)
def test_a_uri_means_what_libpq_takes_it_for(host: str, port: int, user: str, password: str, database: str) -> None:
    uri = f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{host}:{port}/{quote(database, safe='')}"
    theirs, ours = conninfo_to_dict(uri), parse_dsn(uri)
    assert (ours.host, ours.port, ours.user, ours.password, ours.database) == (
        theirs["host"], int(str(theirs["port"])), theirs["user"], theirs["password"], theirs["dbname"],
    )  # fmt: skip
    assert has_password(uri)


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


@given(host=HOST, user=TEXT, password=TEXT, space=st.sampled_from(["", " ", "  "]))
def test_keywords_mean_what_libpq_takes_them_for(host: str, user: str, password: str, space: str) -> None:
    words = f"host{space}={space}{host} user={quoted(user)} password{space}={quoted(password)}"
    theirs, ours = conninfo_to_dict(words), parse_dsn(words)
    assert (ours.host, ours.user, ours.password) == (theirs["host"], theirs["user"], theirs["password"])
    assert has_password(words)


#: Made of what decides how it is read; most are read.
PIECES = st.lists(
    st.sampled_from([*"a:@/?&=,[] \t%", "%20", "::1", "user=", "password=", "dbname=", "host=h", "x@h"]), max_size=9
)
URI = st.builds(
    lambda user, pieces: f"postgresql://{user}{''.join(pieces)}", st.sampled_from(["", "u@", "u:", "u:p@h", "u@h/d?"]), PIECES
)
WORDS = st.builds(
    lambda pieces: "host=h user=u " + "".join(pieces),
    st.lists(st.sampled_from([*"a'=\\ \n\u2003\x1f\xa0", "password=", "dbname = ", "user="]), max_size=9),
)


@settings(max_examples=500)
@given(st.one_of(URI, WORDS, TEXT, st.from_regex(r"postgres(ql)?://[-a-z:@/?&=%,\[\]0-9.]{0,30}", fullmatch=True)))
def test_whatever_is_read_libpq_reads_too(text: str) -> None:
    text = text.strip(" \t\n\r\f\v")  # what a file has around it we take off
    try:
        ours = parse_dsn(text)
    except NotADsn:
        return
    theirs = conninfo_to_dict(text)
    assert (ours.host, ours.user) == (theirs["host"], theirs["user"])
    assert (ours.password, ours.database) == (theirs.get("password") or None, theirs.get("dbname") or "")
    assert ours.port == int(str(theirs.get("port") or USUAL))


@settings(max_examples=500)
@given(st.one_of(URI, WORDS))
def test_what_libpq_reads_with_a_password_has_one(text: str) -> None:
    text = text.strip(" \t\n\r\f\v")
    try:
        theirs = conninfo_to_dict(text)
    except (psycopg.Error, UnicodeDecodeError):
        return
    assert has_password(text) or not theirs.get("password")


@pytest.mark.parametrize(
    ("text", "password"),
    [
        ("postgresql://alice:Top?Secret@host/db", "Top?Secret"),
        ("postgresql://alice:b:c@host/db", "b:c"),
        ("postgresql://alice:a=b&c@host/db", "a=b&c"),
        ("postgresql://alice@host/db?pass%77ord=SECRET", "SECRET"),
        ("postgresql://alice@host/db?password=SECRET&", "SECRET"),
        ("host=host user=alice password = 'a SECRET b'", "a SECRET b"),
        ("host=host user=alice password=a\\ SECRET", "a SECRET"),
        ("host=host user=alice password=a\u2003SECRET", "a\u2003SECRET"),
    ],
)
def test_a_password_is_read_as_libpq_reads_it(text: str, password: str) -> None:
    assert parse_dsn(text).password == password == conninfo_to_dict(text)["password"]
    assert parse_dsn(text).host == "host"


#: Not all of them can be read.
WITH_A_PASSWORD = [
    "postgresql://alice:S SECRET@h/d",
    "postgresql://alice:S@SECRET@h",
    "postgresql://alice:S/SECRET@h/d",
    "postgresql://alice:S?SECRET@h/d",
    "postgresql://alice:%SECRET@h/d",
    "postgresql://alice@h/d?pass%77ord=SECRET",
    "postgresql://alice@h/d?%50assword=SECRET",
    "postgresql://alice@h/d?sslpassword=SECRET",
    "postgresql://alice@h/d?password=SECRET=SECRET",
    "host=h user=u password = 'a SECRET b'",
    "host=h user=u password=a\\ SECRET",
    "host=h user=u password='a\\' SECRET",
    "host=h password=a SECRET=b",
    "host=h dbname='postgresql://u:SECRET@h/d'",
]


@pytest.mark.parametrize("text", WITH_A_PASSWORD)
def test_a_password_is_found_and_never_shown(text: str) -> None:
    assert has_password(text)
    assert "SECRET" not in refusal(text)
    for line in (text, f"  a: {{primary: '{text}'}}", f'  - "{text}", "{text}"'):
        shown = without_password(line)
        assert "SECRET" not in shown
        assert len(shown) == len(line)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u@h:5432/d",
        "postgresql://h:5432/d?user=u@h",
        "postgresql://u@[::1]:5432/d",
        "host=h user=u",
        "postgresql://u@h/d@e",
    ],
)
def test_where_there_is_no_password_none_is_seen(text: str) -> None:
    assert not has_password(text)


@pytest.mark.parametrize(
    ("parameters", "protection"),
    [
        ("", "verify-full"),
        ("?sslmode=disable", "off"),
        ("?sslmode=require", "require"),
        ("?sslmode=verify-ca&sslrootcert=/ca", "verify-ca"),
        ("?sslmode=verify-full", "verify-full"),
        ("?sslrootcert=system", "verify-full"),
        ("?sslrootcert=/ca", "verify-full"),
        ("?sslmode=require&sslrootcert=/ca", "verify-ca"),
        ("?sslmode=require&channel_binding=require", "verify-full"),
        ("?ssl=true", "require"),
    ],
)
def test_how_a_connection_is_protected(parameters: str, protection: Protection) -> None:
    assert parse_dsn(f"postgresql://u@db.example/d{parameters}").protection == protection


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "127.3.2.1"])
def test_loopback_is_in_the_clear_unless_said(host: str) -> None:
    assert parse_dsn(f"postgresql://u@{host}/d").protection == "off"
    assert parse_dsn(f"postgresql://u@{host}/d?sslrootcert=/ca").protection == "verify-full"


def test_a_unix_socket() -> None:
    assert parse_dsn("host=/run/postgresql user=u dbname=d") == Dsn("/run/postgresql", "u", database="d", protection="off")
    assert parse_dsn("postgresql://u@%2Frun%2Fpostgresql/d") == Dsn("/run/postgresql", "u", database="d", protection="off")


def test_a_dsn_as_neon_writes_it() -> None:
    text = "postgresql://alice:s3cret@ep-cool-1.eu-central-1.aws.neon.tech/neondb?sslmode=require&channel_binding=require"
    assert parse_dsn(text) == Dsn(
        "ep-cool-1.eu-central-1.aws.neon.tech", "alice", database="neondb", password="s3cret", protection="verify-full"
    )


def test_a_password_is_not_shown() -> None:
    assert "s3cret" not in repr(parse_dsn("postgresql://u:s3cret@h/d"))


def test_an_ipv6_address_and_a_port() -> None:
    assert parse_dsn("postgres://u@[2001:db8::7]:6543/d") == Dsn("2001:db8::7", "u", 6543, "d")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no DSN"),
        ("db.example", "no DSN"),
        ("postgresql://", "names its host"),
        ("postgresql://u@/d", "names its host"),
        ("postgresql://db/d", "names its user"),
        ("host=h", "names its user"),
        ("postgresql://u@a,b/d", "names one server"),
        ("host=a,b user=u", "names one server"),
        ("postgresql://u@h:70000/d", "65535"),
        ("postgresql://u@h:x/d", "65535"),
        ("postgresql://u@[::1/d", "brackets"),
        ("postgresql://u%zz@h/d", "hexadecimal"),
        ("postgresql://u%ff@h/d", "UTF-8"),
        ("postgresql://u%00@h/d", "NUL"),
        ("postgresql://u@h/d?sslmode=prefer", "between"),
        ("postgresql://u@h/d?sslmode=sometimes", "sslmode"),
        ("postgresql://u@h/d?sslmode=disable&channel_binding=require", "forbids"),
        ("postgresql://u@h/d?options=-cwork_mem=4MB", "list of name=value"),
        ("postgresql://u@h/d?options=-cwork_mem%3D4MB", "ALTER ROLE"),
        ("postgresql://u@h/d?hostaddr=10.0.0.1", "looked up"),
        ("postgresql://u@h/d?sslcert=/c", "client certificates"),
        ("postgresql://u@h/d?colour=red", "not a parameter"),
        ("postgresql://u@h/d?sslmode", "list of name=value"),
        ("postgresql://u@h/d?sslmode=disable&&", "list of name=value"),
        ("postgresql://u@h/d?&sslmode=disable", "list of name=value"),
        ("postgresql://u@h /d", "%20"),
        ("postgresql://u@h/d\n?sslmode=disable", "%20"),
        ("host=h user='u", "keywords and values"),
        ("host=h user", "keywords and values"),
    ],
)
def test_what_is_not_a_dsn_is_said(text: str, said: str) -> None:
    with pytest.raises(NotADsn) as told:
        parse_dsn(text)
    assert said in told.value.message


@given(TEXT)
def test_no_message_repeats_what_was_written(secret: str) -> None:
    marked = "hunter2" + secret
    for text in (
        f"postgresql://u:{marked}@h/d", f"postgresql://u:{secret}hunter2@h/d", f"postgresql://u@h/d?password={secret}hunter2",
        f"host=h user=u password={marked}", f"host=h password='{marked}", f"host=h user=u password={secret}hunter2=x",
    ):  # fmt: skip
        assert "hunter2" not in refusal(text)


def refusal(text: str) -> str:
    try:
        parse_dsn(text)
    except NotADsn as error:
        return error.message + error.hint
    return ""


def test_the_reading_that_libpq_itself_refuses() -> None:
    with pytest.raises(psycopg.ProgrammingError):
        conninfo_to_dict("postgresql://u@[::1/d")
