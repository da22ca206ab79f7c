"""What proves who is who in one fleet: passwords, certificates and SCRAM verifiers, made at the first apply and kept."""

from __future__ import annotations

import datetime
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pgfleet.render.scram import scram_verifier
from pgfleet.runtime.certificates import Certificate, make_authority, sign
from pgfleet.runtime.files import make_folder, write_atomically
from pgfleet.runtime.secrets import keep_hex, keep_salt, keep_secret

#: PostgreSQL's roles; the first three are Patroni's.
ROLES = ("postgres", "replicator", "rewind", "pgfleet_owner", "pgfleet_app", "pgfleet_monitor")
#: Those that may come through the pooler, whose verifier it must hold.
POOLED = ("pgfleet_app", "pgfleet_monitor")
ETCD_USERS = ("root", "patroni", "keeper", "app")


@dataclass(frozen=True, slots=True)
class EngineUser:
    """Whom engines run as: an unprivileged user, or ourselves when we are one."""

    name: str | None  # None: as we are
    uid: int
    gid: int

    @property
    def owner(self) -> tuple[int, int] | None:
        return (self.uid, self.gid) if self.name is not None else None


def engine_user(uid: int) -> EngineUser:
    """:param uid: ours. Root's engines run as ``postgres``, which PostgreSQL's packages make.

    :raises KeyError: we are root and there is no such user.
    """
    if uid != 0:
        return EngineUser(None, uid, pwd.getpwuid(uid).pw_gid)
    entry = pwd.getpwnam("postgres")
    return EngineUser("postgres", entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True, slots=True)
class Credentials:
    """:param passwords: by PostgreSQL role. :param etcd: by etcd user. :param verifiers: SCRAM, by role."""

    passwords: dict[str, str]
    etcd: dict[str, str]
    verifiers: dict[str, str]
    token: str


#: Stands in for every secret where only the digest of a rendering is wanted: digests must not depend on secrets.
PLACEHOLDERS = Credentials(
    passwords=dict.fromkeys(ROLES, "*"),
    etcd=dict.fromkeys(ETCD_USERS, "*"),
    verifiers=dict.fromkeys(ROLES, "*"),
    token="*",  # noqa: S106 - a placeholder
)


def keep_credentials(folder: Path) -> Credentials:
    """The passwords of the fleet in ``folder``; those that are missing are made now (0600, ours alone)."""
    secrets = folder / "secrets"
    make_folder(secrets, mode=0o700)
    passwords = {role: keep_secret(secrets / role) for role in ROLES}
    etcd = {user: keep_secret(secrets / f"etcd-{user}") for user in ETCD_USERS}
    verifiers = {role: scram_verifier(passwords[role], keep_salt(secrets / f"{role}.salt")) for role in ROLES}
    return Credentials(passwords, etcd, verifiers, keep_hex(secrets / "etcd-token"))


def keep_certificates(folder: Path, host: str, engines: EngineUser) -> None:
    """Authorities and certificates of the fleet in ``folder``; those that are missing are made now.

    ``ca`` verifies every server and opens Patroni's unsafe endpoints; ``app-ca`` is known to etcd only.
    """
    place = folder / "certificates"
    make_folder(place)
    now = datetime.datetime.now(datetime.UTC)
    fleet = folder.name
    ca = _keep(place, "ca", None, lambda: make_authority(f"pgfleet {fleet}", now))
    app_ca = _keep(place, "app-ca", None, lambda: make_authority(f"pgfleet {fleet} applications", now))
    hosts = sorted({host, "127.0.0.1", "localhost"})
    _keep(place, "server", engines.owner, lambda: sign(ca, now, unit="server", hosts=hosts, server=True))
    _keep(place, "operator", None, lambda: sign(ca, now, unit="operator", server=False))
    _keep(place, "app", None, lambda: sign(app_ca, now, unit="app", server=False))
    write_atomically(place / "etcd-clients.crt", ca.certificate + app_ca.certificate)


def _keep(place: Path, name: str, owner: tuple[int, int] | None, make: Callable[[], Certificate]) -> Certificate:
    certificate, key = place / f"{name}.crt", place / f"{name}.key"
    if not (certificate.exists() and key.exists()):
        made = make()
        # The key first: a certificate without its key would look complete.
        write_atomically(key, made.key, mode=0o600, owner=owner)
        write_atomically(certificate, made.certificate)
    return Certificate(certificate.read_bytes(), key.read_bytes())
