"""Where Patroni's own Python is. ``script/bootstrap`` builds it by the same rule; its header says the rule in words."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pgfleet.errors import EnginesMissing

SITE = Path("/opt/pgfleet/engines")  # root's; every user may read it
LOCK = Path(__file__).with_name("engines.lock")


def patroni_home() -> Path:
    """The folder of the venv that holds Patroni: ``$PGFLEET_ENGINES``, root's, or the user's own, in this order.

    The last two are named by the first 12 hex digits of the SHA-256 of ``engines.lock``, so that a new lock means a new
    venv and running engines keep theirs. One that is still being built has no ``.complete`` and is not taken.

    :raises EnginesMissing: none of them is there.
    """
    chosen = os.environ.get("PGFLEET_ENGINES")
    if chosen:
        home = Path(chosen).absolute()
        if not (home / "bin" / "patroni").exists():
            raise EnginesMissing(
                f"PGFLEET_ENGINES is {home}, but there is no Patroni in it",
                seen=[f"no {home / 'bin' / 'patroni'}"],
                hint="unset PGFLEET_ENGINES && script/bootstrap",
            )
        return home
    name = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    places = [SITE / name, _user_data() / "pgfleet" / "engines" / name]
    for place in places:
        if (place / ".complete").exists():
            return place
    raise EnginesMissing(
        "Patroni is not installed for this version of pgfleet",
        seen=[f"no {place}" for place in places],
        hint="script/bootstrap",
    )


def _user_data() -> Path:
    home = os.environ.get("XDG_DATA_HOME")
    return Path(home) if home else Path.home() / ".local" / "share"
