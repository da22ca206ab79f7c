"""Fleets whose plans and configuration are approved, and the host they would be on. Nothing of it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pgfleet.engines.postgres import PostgresBinaries
from pgfleet.facts.addresses import AddressBook
from pgfleet.providers.local.addressing import HOST, assign
from pgfleet.providers.local.compose import Composed, Site, compose
from pgfleet.providers.local.credentials import ETCD_USERS, ROLES, Credentials, EngineUser
from pgfleet.providers.local.engines import Engines
from pgfleet.providers.local.ports import FIRST, Ports
from pgfleet.providers.local.provider import LocalProvider
from pgfleet.render.patroni import dynamic_configuration
from pgfleet.render.pgbouncer import prepared_statements
from pgfleet.render.scram import scram_verifier
from pgfleet.spec.load import load_positioned

FOLDER = Path("/var/lib/pgfleet/bank")

ENGINES = Engines(
    postgres=PostgresBinaries(15, Path("/usr/lib/postgresql/15/bin")),
    patroni="/opt/pgfleet/engines/0123456789ab/bin/patroni",
    etcd="/usr/bin/etcd",
    pgbouncer="/usr/sbin/pgbouncer",
    haproxy="/usr/sbin/haproxy",
    user=EngineUser("postgres", 101, 103),
    pgbouncer_version=(1, 18),
)

CREDENTIALS = Credentials(
    passwords={role: f"password-of-{role}" for role in ROLES},
    etcd={user: f"etcd-password-of-{user}" for user in ETCD_USERS},
    verifiers={role: scram_verifier(f"password-of-{role}", f"salt of {role}".encode()) for role in ROLES},
    token="0123456789abcdef",
)

#: Three regions; a shard whose commits are on two nodes more and that has a reader, and one whose commits are on one more.
BANK = """\
fleet: bank
regions:
  us-east: {}
  us-west: {}
  eu-west: {}
shards:
  stem:
    home: us-east
    voters: {us-east: 1, us-west: 1, eu-west: 1}
    readers: {eu-west: 1}
    sync: 2
    settings: {work_mem: 8MB}
  humanities: {home: us-west, voters: {us-west: 2}, sync: 1, promises: {region: none}}
tables:
  questions:
    key: subject
    place: {stem: [Mathematics], humanities: [Business]}
    elsewhere: {hash: 64, over: [stem, humanities]}
"""

#: One region, one node: nobody else could have a commit.
ALONE = """\
fleet: alone
regions: {here: {}}
shards: {main: {voters: {here: 1}, promises: {crash: none, silent: none}}}
pools: {max_client_conn: 200, default_pool_size: 5, query_wait_timeout: 10 s, max_connections: 40}
"""


class Counted(Ports):
    """Ports in order, whoever listens there."""

    def __init__(self) -> None:
        super().__init__(HOST, {}, "")
        self._next = FIRST

    def take(self) -> int:
        self._next += 1
        return self._next


def provider(text: str, folder: Path = FOLDER) -> LocalProvider:
    """Provider ``local`` of the fleet that ``text`` declares."""
    loaded = load_positioned("fleet.yaml", text)
    assert loaded.fleet is not None
    return LocalProvider(loaded.fleet, loaded.positions, folder, ENGINES)


def book(text: str, folder: Path = FOLDER, pgbouncer: tuple[int, int] = ENGINES.pgbouncer_version) -> AddressBook:
    """Its address book, the same every time."""
    fleet = provider(text, folder).fleet
    return assign(fleet, fleet.shapes(), folder, None, Counted(), prepared=prepared_statements(pgbouncer))


def composed(text: str, folder: Path = FOLDER, pgbouncer: tuple[int, int] = ENGINES.pgbouncer_version) -> dict[str, Composed]:
    """Its processes and their files, with credentials that anybody may read."""
    fleet = provider(text, folder).fleet
    configurations = {
        shape.name: dynamic_configuration(shape.settings, sync=shape.sync, max_connections=fleet.pools.max_connections)
        for shape in fleet.shapes()
    }
    return compose(Site(fleet, fleet.shapes(), book(text, folder, pgbouncer), folder, ENGINES, CREDENTIALS, configurations))


def file_of(unit: Composed, name: str) -> str:
    """The file called ``name`` of ``unit``."""
    return next(text for path, text in unit.files.items() if path.name == name)


def lines(words: Sequence[str]) -> str:
    """An argument vector as text: an option and its value on one line."""
    out: list[str] = []
    for word in words:
        if word.startswith("-") or not out or not out[-1].startswith("-") or " " in out[-1]:
            out.append(word)
        else:
            out[-1] += f" {word}"
    return "\n".join(out) + "\n"
