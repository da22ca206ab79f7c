"""Who logs in to a node of an address book, and how its answer is protected: the one place that knows.

A node that pgfleet made has the fleet's roles, database and authority; one that was given by a DSN has its own of each.
"""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path

from pgfleet.errors import SecretUnreadable
from pgfleet.facts.addresses import AddressBook, NodeAddress, Protection
from pgfleet.runtime.http import fleet_context
from pgfleet.runtime.sql import Login
from pgfleet.runtime.state import read_secret


def login_of(folder: Path, book: AddressBook, node: NodeAddress, role: str) -> Login:
    """:param folder: the fleet's state folder. :param role: as whom, on a node that has the fleet's roles.
    :raises SecretUnreadable: the password, or the authority's certificate, is absent or not ours to read.
    """
    secret = node.secret or ("" if node.user else role)
    password = read_secret(folder, secret) if secret else None
    return Login(node.user or role, book.database_of(node), password, tls_of(folder, node))


def tls_of(folder: Path, node: NodeAddress) -> ssl.SSLContext | None:
    """None: in the clear. :raises SecretUnreadable: the authority's certificate cannot be read."""
    if node.protection == "fleet":
        return fleet_context(folder)
    try:
        return tls_context(node.protection, node.authority)
    except OSError as error:  # ssl.SSLError is one
        said = error.strerror or str(error)
        raise SecretUnreadable(f"the authority of {node.name} cannot be read", seen=[f"{node.authority}: {said}"]) from None


def system_authorities() -> str:
    """Where the certificates of the system's authorities are, for libpq, whose ``sslrootcert=system`` is of version 16 only."""
    places = (ssl.get_default_verify_paths().cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
    return next((place for place in places if place and Path(place).is_file()), "system")


@lru_cache(maxsize=64)
def tls_context(protection: Protection, authority: str) -> ssl.SSLContext | None:
    """What a DSN asks for (PostgreSQL docs, 34.19.1); one context for all who ask alike.

    :raises OSError: ``authority`` cannot be read.
    """
    if protection == "off":
        return None
    context = ssl.create_default_context(cafile=authority or None)
    context.check_hostname = protection == "verify-full"
    if protection == "require":
        context.verify_mode = ssl.CERT_NONE
    return context
