"""One process of the pair: waits for the lock, then is the active keeper until it is told to leave."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from pathlib import Path

from pgfleet.providers.local.keeper.answer import answering
from pgfleet.providers.local.keeper.keeper import Keeper
from pgfleet.providers.local.keeper.twin import Twin, open_lock, take, write_pid


def keep(folder: Path) -> int:
    """Be the keeper of the fleet in ``folder``, now or when the present one ends. Returns an exit status."""
    os.umask(0o077)
    run = folder / "run"
    run.mkdir(exist_ok=True)
    lock = open_lock(run / "keeper.lock")
    if not take(lock):
        twin = open_lock(run / "twin.lock")
        if not take(twin):
            return 0  # a pair is there already
        write_pid(twin)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.ftruncate(twin, 0)
        os.close(twin)
    write_pid(lock)
    asyncio.run(_active(folder))
    return 0


async def _active(folder: Path) -> None:
    keeper, leave = Keeper(folder), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave.set)
    twin = Twin(keeper)
    async with answering(keeper, twin, leave):
        beginning = asyncio.create_task(keeper.begin())
        tending = asyncio.create_task(twin.tend())
        leaving = asyncio.create_task(leave.wait())
        await asyncio.wait({beginning, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if beginning.done():
            beginning.result()  # a keeper that cannot begin ends, and says why in its log
        await leaving
        tending.cancel()
        await twin.end()
        beginning.cancel()
    keeper.told.tell("", "leaves", "it was told to; what runs goes on")
    await keeper.close()
