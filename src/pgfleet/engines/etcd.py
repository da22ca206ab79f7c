"""etcd's users: made once, then authentication is switched on and stays on."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgfleet.errors import EtcdRefused
from pgfleet.topology.etcd import EtcdClient


@dataclass(frozen=True, slots=True)
class Permission:
    """What a user may do below a prefix of keys."""

    prefix: str
    kind: str  # READ or READWRITE


#: Least privilege: who touches which keys. ``root`` (etcd demands the name) only manages users and is used here alone.
PERMISSIONS: Mapping[str, Sequence[Permission]] = {
    "patroni": (Permission("/service/", "READWRITE"),),
    # The keeper revokes a fenced primary's lease: that needs the right to write every key on it.
    "keeper": (Permission("/service/", "READWRITE"), Permission("/pgfleet/", "READWRITE")),
    "app": (Permission("/service/", "READ"), Permission("/pgfleet/", "READ")),
}


def _span(prefix: str) -> dict[str, str]:
    end = bytearray(prefix.encode())
    end[-1] += 1
    return {"key": base64.b64encode(prefix.encode()).decode(), "range_end": base64.b64encode(bytes(end)).decode()}


async def _unless_there(etcd: EtcdClient, path: str, body: Mapping[str, object]) -> None:
    try:
        await etcd.call(path, body)
    except EtcdRefused as no:
        if "already exist" not in no.message:
            raise


async def authentication_enabled(etcd: EtcdClient) -> bool:
    """Whether etcd asks for a user; ``etcd`` has none."""
    try:
        await etcd.range("/pgfleet/")
    except EtcdRefused as no:
        if "user name is empty" in no.message or "permission denied" in no.message:
            return True
        raise
    return False


async def enable_authentication(etcd: EtcdClient, passwords: Mapping[str, str]) -> None:
    """Make every user with its role, then switch authentication on. Can be repeated after an interruption at any point.

    :param etcd: a client without a user (a certificate it has).
    :param passwords: by user: ``root`` and those of :data:`PERMISSIONS`.
    """
    await _unless_there(etcd, "auth/role/add", {"name": "root"})
    for user, password in passwords.items():
        await _unless_there(etcd, "auth/user/add", {"name": user, "password": password})
        await _unless_there(etcd, "auth/role/add", {"name": user})
        for permission in PERMISSIONS.get(user, ()):
            grant = {"permType": permission.kind, **_span(permission.prefix)}
            await etcd.call("auth/role/grant", {"name": user, "perm": grant})
        await etcd.call("auth/user/grant", {"user": user, "role": user})
    await etcd.call("auth/enable", {})
