"""From what was typed to the driver of the fleet it means."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pgfleet.providers.driver import Driver
from pgfleet.providers.local.provider import LocalProvider
from pgfleet.spec.fleet import Fleet
from pgfleet.spec.load import load_positioned


class Asked(Protocol):
    """What every command is told: which file, and where the state is."""

    @property
    def file(self) -> str: ...

    def text(self) -> str: ...

    def folder(self, fleet: str) -> Path: ...


def driver_of(asked: Asked) -> tuple[Driver, Fleet, Path]:
    """The driver, the fleet and its state folder.

    :raises SpecError: every mistake of the file.
    :raises PostgresMissing, EnginesMissing: something is not installed.
    """
    loaded = load_positioned(asked.file, asked.text())
    assert loaded.fleet is not None  # noqa: S101 - load_positioned raises otherwise
    folder = asked.folder(loaded.fleet.fleet)
    return LocalProvider.of(loaded.fleet, loaded.positions, folder), loaded.fleet, folder
