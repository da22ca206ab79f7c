"""The state folder of a fleet: where it is, and reading what may be read from it."""

from __future__ import annotations

import os
from pathlib import Path

from pgfleet.errors import NotApplied, SecretUnreadable
from pgfleet.facts.addresses import AddressBook
from pgfleet.routing.placement import Placement


def state_root(override: str | None = None) -> Path:
    """The folder that holds one folder a fleet: ``override``, ``$PGFLEET_STATE``, or by who we are (DESIGN: root has
    /var/lib/pgfleet, anybody else the XDG state folder)."""
    chosen = override or os.environ.get("PGFLEET_STATE")
    if chosen:
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/pgfleet")
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "pgfleet"


def fleet_folder(name: str, override: str | None = None) -> Path:
    """The state folder of the fleet called ``name``."""
    return state_root(override) / name


def read_addresses(folder: Path) -> AddressBook:
    """The address book of the fleet in ``folder``.

    :raises NotApplied: there is none.
    """
    path = folder / "addresses.json"
    try:
        return AddressBook.from_json(path.read_text())
    except FileNotFoundError:
        raise NotApplied(f"fleet {folder.name!r} was never applied here", seen=[f"no {path}"], hint="pgfleet apply") from None


def read_secret(folder: Path, role: str) -> str:
    """The password of ``role``.

    :raises SecretUnreadable: absent, or not ours to read.
    """
    path = folder / "secrets" / role
    try:
        return path.read_text()
    except (FileNotFoundError, PermissionError) as error:
        raise SecretUnreadable(f"the password of {role} cannot be read", seen=[f"{path}: {error.strerror}"]) from None


def read_placement(folder: Path) -> Placement:
    """The placement that was last applied to the fleet in ``folder``.

    :raises NotApplied: none was.
    """
    path = folder / "placement.json"
    try:
        return Placement.from_json(path.read_text())
    except FileNotFoundError:
        raise NotApplied(
            f"fleet {folder.name!r} was never wholly applied here", seen=[f"no {path}"], hint="pgfleet apply"
        ) from None
