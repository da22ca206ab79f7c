"""From the DSNs of a file to an address book: what each leads to, resolved now, without a password in the book.

Apply writes it down; an application that runs where nothing was applied, with the file and the same variables, makes it anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pgfleet.errors import DsnUnreadable
from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.names import NodeName
from pgfleet.runtime.login import tls_context
from pgfleet.runtime.secrets import resolve
from pgfleet.runtime.sql import Login
from pgfleet.spec.document import Positions
from pgfleet.spec.dsn import Dsn, NotADsn, parse_dsn
from pgfleet.spec.fleet import Fleet
from pgfleet.spec.secret import is_reference, read_reference
from pgfleet.spec.shape import GivenNode

#: What the names of our secrets begin with; no role's does, and no node's name has a dot.
SECRETS = "node."


@dataclass(frozen=True, slots=True)
class Given:
    """What the file gives, resolved.

    :param sources: where the file says each node, for messages.
    """

    book: AddressBook
    logins: Mapping[NodeName, Login]
    sources: Mapping[NodeName, str]

    def login_of(self, node: NodeAddress) -> Login:
        return self.logins[node.name]

    def secrets(self) -> dict[str, str]:
        """The passwords, by the name of the file that is to hold each."""
        return {node.secret: self.logins[node.name].password or "" for node in self.book.nodes if node.secret}


def resolved(fleet: Fleet, positions: Positions, folder: Path) -> Given:
    """:raises DsnUnreadable: a reference leads to nothing, to what is no DSN, or to an authority that cannot be read."""
    beside = Path(positions.file).absolute().parent
    nodes: list[NodeAddress] = []
    logins: dict[NodeName, Login] = {}
    sources: dict[NodeName, str] = {}
    for shard in fleet.shards:
        for given in fleet.given(shard):
            source = f"{positions.file}:{positions.of(*given.path).line} {'.'.join(map(str, given.path))}"
            dsn = _dsn(given, source, beside)
            node = _address(given.name, dsn, beside)
            try:
                tls = tls_context(node.protection, node.authority)
            except OSError as error:
                said = error.strerror or str(error)
                raise DsnUnreadable(f"{source}: its authority cannot be read", seen=[f"{node.authority}: {said}"]) from None
            nodes.append(node)
            logins[given.name] = Login(dsn.user, dsn.database or fleet.database, dsn.password, tls)
            sources[given.name] = source
    book = AddressBook(
        fleet.fleet, str(folder.absolute()), fleet.database, nodes=tuple(nodes), per_process=fleet.pools.per_process
    )
    return Given(book, logins, sources)


def _dsn(given: GivenNode, source: str, beside: Path) -> Dsn:
    text = given.dsn
    if is_reference(text):
        reference = read_reference(text)
        try:
            text = resolve(reference, beside)
        except LookupError as error:
            example = "postgresql://USER:PASSWORD@HOST:5432/DATABASE"
            hint = f"export {reference.name}={example}" if reference.kind == "env" else ""
            raise DsnUnreadable(f"{source}: {error.args[0]}", hint=hint) from None
    try:
        return parse_dsn(text)
    except NotADsn as error:
        raise DsnUnreadable(f"{source}: what `{given.dsn}` holds: {error.message}", hint=error.hint) from None


def _address(name: NodeName, dsn: Dsn, beside: Path) -> NodeAddress:
    return NodeAddress(
        name, "voter", dsn.host, dsn.port, database=dsn.database, user=dsn.user,
        secret=f"{SECRETS}{name.shard}.{name.member}" if dsn.password is not None else "", protection=dsn.protection,
        authority=str(beside / Path(dsn.authority).expanduser()) if dsn.authority else "",
    )  # fmt: skip
