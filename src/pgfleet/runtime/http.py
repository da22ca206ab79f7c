"""TLS contexts of a fleet, for everything that speaks TLS: etcd, Patroni's REST, PostgreSQL."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Literal

Who = Literal["app", "operator"]


def fleet_context(folder: Path, who: Who | None = None) -> ssl.SSLContext | None:
    """Verifies servers by the fleet's own authority and by their address, and no other authority.

    :param folder: the fleet's state folder.
    :param who: shows that client certificate: ``app`` opens etcd, ``operator`` also Patroni's unsafe endpoints. None:
        none.
    :returns: None where the fleet has no authority (its servers offer no TLS).
    :raises OSError: a certificate or its key is absent, or not ours to read.
    """
    certificates = folder / "certificates"
    authority = certificates / "ca.crt"
    if not authority.exists():
        return None
    context = ssl.create_default_context(cafile=str(authority))
    if who is not None:
        context.load_cert_chain(str(certificates / f"{who}.crt"), str(certificates / f"{who}.key"))
    return context
