"""A route is a value that any driver understands."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import psycopg.conninfo
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.names import NodeName
from pgfleet.routing.choose import Choice, Why
from pgfleet.routing.placement import Placed
from pgfleet.routing.route import Role, Route, Tls
from pgfleet.routing.table import NodeRoute

NODE = NodeRoute(NodeName("stem", "us-east", 12), "10.0.0.1", 5432, lag=65536)
CHOICE = Choice(NODE, Why.SAME_REGION)


def route(role: Role = "read", **more: object) -> Route:
    words = {"database": "app", "version": 3, "claim": "questions:PMP", "epoch": 7, **more}
    return Route.of(CHOICE, Placed("stem", "PMP is listed"), role, **words)  # type: ignore[arg-type]


def test_it_says_where_and_because() -> None:
    made = route()
    assert (made.shard, made.node, made.region, made.address, made.version) == (
        "stem",
        "us-east-12",
        "us-east",
        "10.0.0.1:5432",
        3,
    )
    assert made.name == NODE.name
    assert str(made) == (
        "read stem/us-east-12 at 10.0.0.1:5432, because PMP is listed; a replica in the caller's region, at most 64 kB behind"
    )


def test_a_read_is_read_only_and_a_write_claims_its_epoch() -> None:
    assert route("read").connect_kwargs() == {
        "host": "10.0.0.1", "port": 5432, "dbname": "app", "sslmode": "disable", "options": "-c default_transaction_read_only=on",
    }  # fmt: skip
    assert route("write").connect_kwargs()["options"] == "-c default_transaction_read_only=off -c pgfleet.epoch=7"
    assert route("write", epoch=0).connect_kwargs()["options"] == "-c default_transaction_read_only=off"
    assert route("write").connect_kwargs()["target_session_attrs"] == "read-write"


def test_a_login_is_in_it_only_where_the_caller_puts_one() -> None:
    words = route().connect_kwargs(user="app", password="s3cret")
    assert (words["user"], words["password"]) == ("app", "s3cret")
    assert not {"user", "password"} & route().connect_kwargs().keys()
    assert "password" not in route().dsn(user="app")


def test_the_server_is_verified_where_there_is_an_authority() -> None:
    made = route(tls=Tls("verify-full", "/a/ca.crt"))
    assert made.connect_kwargs()["sslrootcert"] == "/a/ca.crt"
    assert "sslmode=verify-full&" in made.dsn()


@given(
    database=st.text("abc /?#%@:é", min_size=1), host=st.sampled_from(["127.0.0.1", "::1", "db.example"]),
    user=st.text("ab@:/%", min_size=1), authority=st.sampled_from(["", "/var/lib/a b/ca.crt"]),
)  # fmt: skip
def test_the_uri_says_what_the_keywords_say(database: str, host: str, user: str, authority: str) -> None:
    node = NodeRoute(NODE.name, host, 5432)
    made = Route.of(
        Choice(node, Why.WRITE),
        Placed("stem", "x"),
        "write",
        database=database,
        version=1,
        epoch=9,
        tls=Tls("require", authority),
    )
    wanted = {name: str(value) for name, value in made.connect_kwargs(user=user).items()}
    assert psycopg.conninfo.conninfo_to_dict(made.dsn(user=user)) == wanted  # libpq's own parser
    assert parse_qs(urlsplit(made.dsn()).query)["options"] == [wanted["options"]]


def test_it_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        route().host = "elsewhere"  # type: ignore[misc]
