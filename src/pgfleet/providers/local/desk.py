"""The list of processes, changed while several shards are being made at once: one writer, and the keeper told each time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

from pgfleet.errors import NotSettled
from pgfleet.providers.local.compose import Composed
from pgfleet.providers.local.credentials import EngineUser
from pgfleet.providers.local.keeper.control import KeeperClient, start_keeper
from pgfleet.providers.local.units import Unit, read_units, write_units
from pgfleet.runtime.files import make_folder, write_atomically


class Desk:
    """Starts and stops the processes of the fleet in ``folder``.

    :param composed: everything that shall run, by unit name.
    """

    def __init__(self, folder: Path, fleet: str, composed: Mapping[str, Composed], engines: EngineUser) -> None:
        self._folder = folder
        self._fleet = fleet
        self._composed = composed
        self._owner = engines.owner
        self._units: dict[str, Unit] = {unit.name: unit for unit in read_units(folder)}
        self._keeper = KeeperClient(folder)
        self._alive = False
        self._writing = asyncio.Lock()

    async def start_keeper(self) -> None:
        """Have a keeper that answers: the one that runs, or a new one, which adopts what runs.

        :raises KeeperUnreachable: it did not come up.
        """
        await start_keeper(self._folder)
        self._alive = True

    def keeper_answers(self) -> None:
        """Somebody saw it."""
        self._alive = True

    async def put(self, names: Iterable[str]) -> None:
        """Write the files of ``names``, put them on the list, and have the keeper act: start what is new, change what differs."""
        async with self._writing:
            for name in names:
                await asyncio.to_thread(self._write, self._composed[name])
                self._units[name] = self._composed[name].unit
            await self._tell()

    async def start(self, name: str, because: str) -> None:
        """Write the files of ``name`` again and have the keeper start it now."""
        await self.put([name])
        await self._keeper.restart(name, because)

    async def drop(self, names: Iterable[str]) -> None:
        """Take ``names`` off the list and have the keeper stop them."""
        async with self._writing:
            for name in names:
                self._units.pop(name, None)
            await self._tell()

    async def _tell(self) -> None:
        order = list(self._composed)
        ranked = sorted(self._units.values(), key=lambda u: order.index(u.name) if u.name in order else len(order))
        write_units(self._folder, self._fleet, ranked)
        if self._alive:
            await self._keeper.sync()

    def _write(self, composed: Composed) -> None:
        for folder in (composed.folder, *composed.folders):
            make_folder(folder, mode=0o700, owner=self._owner)
        for path, text in composed.files.items():
            write_atomically(path, text, mode=0o600, owner=self._owner)

    async def gone(self, name: str, within: float = 30.0) -> None:
        """Wait until the keeper no longer runs ``name``.

        :raises NotSettled: it still does after ``within`` seconds.
        """
        try:
            async with asyncio.timeout(within):
                while (await self._keeper.status()).unit(name) is not None:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise NotSettled(f"{name} still runs {within:g} s after it was told to stop") from None
