"""Destroy: everything stopped, everything deleted; can be interrupted anywhere and run again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pgfleet.control.lock import acting
from pgfleet.providers.driver import Driver


async def destroy(driver: Driver, folder: Path, told: Callable[[str], None], *, schema: bool = False) -> bool:
    """Take the fleet in ``folder`` down; false when there was none.

    :param schema: the fleet's own schema too, on servers that were given and stay.

    :raises FleetBusy: somebody is changing it.
    :raises NoFleetsFolder: what is there is somebody else's.
    """
    if not folder.exists():
        return False
    with acting(folder, "destroy"):
        await driver.destroy(told, schema=schema)
    return True
