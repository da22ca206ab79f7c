"""From what was typed to the driver of the fleet it means."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pgfleet.providers import catalog
from pgfleet.providers.driver import Driver
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
    :raises PostgresMissing, EnginesMissing: something that its provider needs is not installed.
    """
    loaded = load_positioned(asked.file, asked.text())
    fleet = loaded.judged()
    folder = asked.folder(fleet.fleet)
    return catalog.driver_of(fleet, loaded.positions, folder), fleet, folder
