"""The providers that there are. Nothing else names them; what each can do is data (spec/providers.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pgfleet.providers.driver import Driver
from pgfleet.providers.existing.provider import ExistingProvider
from pgfleet.providers.local.provider import LocalProvider
from pgfleet.spec.document import Positions
from pgfleet.spec.fleet import Fleet

#: By name in the file: who makes the driver of a fleet in its state folder.
DRIVERS: Mapping[str, Callable[[Fleet, Positions, Path], Driver]] = {
    "local": LocalProvider.of,
    "existing": ExistingProvider,
}


def driver_of(fleet: Fleet, positions: Positions, folder: Path) -> Driver:
    """The driver of a checked ``fleet``.

    :param positions: where its file says what, for ``because``.
    :raises PostgresMissing, EnginesMissing: something that the provider needs is not installed.
    """
    return DRIVERS[fleet.provider](fleet, positions, folder)
