"""What ``connect()`` was given, found: the address book, the placement that was applied, who we are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from pgfleet.errors import FileUnreadable, NotApplied
from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.names import NodeName
from pgfleet.routing.placement import Placement
from pgfleet.runtime.http import fleet_context
from pgfleet.runtime.login import login_of
from pgfleet.runtime.sql import Login
from pgfleet.runtime.state import fleet_folder, read_addresses, read_placement, read_secret
from pgfleet.topology.etcd import EtcdClient

#: etcd's user for applications: it may read, and nothing else.
ETCD_USER = "app"
_ANY = NodeName("any", "any", 1)


@dataclass(frozen=True, slots=True)
class Opened:
    """Everything a client needs to know before it speaks to anybody.

    :param logins: how each node is logged in to: nodes that are given by DSNs have a user, a database and a TLS of their own.
    """

    book: AddressBook
    placement: Placement
    logins: Mapping[NodeName, Login]
    folder: Path

    def login_of(self, node: NodeAddress) -> Login:
        """How ``node`` is logged in to."""
        return self.logins[node.name]

    def etcd(self) -> EtcdClient | None:
        """A client of the fleet's etcd; None where there is none, or where it is not ours to ask."""
        if not self.book.etcd:
            return None
        tls = fleet_context(self.folder, "app")
        password = read_secret(self.folder, f"etcd-{ETCD_USER}")
        return EtcdClient([e.url for e in self.book.etcd], tls=tls, user=ETCD_USER, password=password)


def open_fleet(where: str | Path, *, state: str | None, role: str) -> Opened:
    """:param where: the fleet's file, or its state folder (or the address book in it).
    :raises FileUnreadable: neither is there.
    :raises NotApplied: the fleet was never applied on this host, and its servers are not given by DSNs.
    :raises SecretUnreadable: a password is not ours to read.
    :raises DsnUnreadable, SpecError: the file alone says where the servers are, and does not.
    """
    folder = _folder(Path(where), state)
    try:
        book = read_addresses(folder)
    except NotApplied:
        opened = _given(Path(where), folder)
        if opened is None:
            raise
        return opened
    alike: dict[NodeAddress, Login] = {}
    logins = {}
    for node in book.nodes:
        # A hundred nodes of ours read one password and one authority, once.
        kind = replace(node, name=_ANY, kind="voter", host="", port=0, rest_port=0)
        if kind not in alike:
            alike[kind] = login_of(folder, book, node, role)
        logins[node.name] = alike[kind]
    return Opened(book, read_placement(folder), logins, folder)


def _given(where: Path, folder: Path) -> Opened | None:
    """An application's own host, where nothing was applied: the file and its variables say as much as a state folder would.

    :returns: None where the servers are not given by DSNs.
    """
    if where.is_dir() or where.name == "addresses.json":
        return None
    from pgfleet.runtime.given import resolved  # models are loaded where they are needed, which is here only
    from pgfleet.spec.load import load_positioned

    loaded = load_positioned(str(where), where.read_text(encoding="utf-8"))
    fleet = loaded.judged()
    if fleet.traits.provisions:
        return None
    given = resolved(fleet, loaded.positions, folder)
    # Epoch 0: any map that the shards have is newer.
    return Opened(given.book, Placement.of(fleet, epoch=0), given.logins, folder)


def _folder(where: Path, state: str | None) -> Path:
    if where.is_dir():
        return where
    if where.name == "addresses.json":
        return where.parent
    try:
        # Only its name is needed: what was applied counts, not what the file says by now.
        document = yaml.safe_load(where.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileUnreadable(f"there is no {where}", seen=[f"working folder {Path.cwd()}"], hint="pgfleet init") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FileUnreadable(f"{where} cannot be read", seen=[str(error)], hint="pgfleet check") from None
    name = document.get("fleet") if isinstance(document, Mapping) else None
    if not isinstance(name, str):
        raise NotApplied(f"{where} names no fleet", hint="fleet: NAME")
    return fleet_folder(name, state)
