"""One acting process per fleet: a lock that the kernel drops when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pgfleet.errors import FleetBusy, NoFleetsFolder

#: What a folder of ours has from its first moment to its last: this lock and the journal; the others for what an older or
#: a killed process left.
OURS = ("acting.lock", "journal.db", "addresses.json", "units.json")


@contextmanager
def acting(folder: Path, what: str) -> Iterator[None]:
    """Hold the right to change the fleet in ``folder``.

    :param what: ``apply``, ``destroy``, ``switchover``: told to who comes second.
    :raises FleetBusy: another process holds it.
    :raises NoFleetsFolder: what is there is somebody else's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refuse_others(folder)
    with (folder / "acting.lock").open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise FleetBusy(
                f"another process is changing fleet {folder.name}", seen=[_holder(stream.read())],
                hint="wait for it, or end it by its pid: what it did stays, and can be gone on with",
            ) from None  # fmt: skip
        stream.seek(0)
        stream.truncate()
        json.dump({"what": what, "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}, stream)
        stream.flush()
        yield


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"{holder['what']}, pid {holder['pid']}, since {holder['since']}"
    except (ValueError, KeyError):
        return "it has just begun"


def refuse_others(folder: Path) -> None:
    """:raises NoFleetsFolder: ``folder`` holds something, and nothing of it is a fleet's."""
    there = sorted(entry.name for entry in folder.iterdir())
    if there and not any(name in OURS for name in there):
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        raise NoFleetsFolder(
            f"{folder} holds something, and no fleet", seen=[f"{', '.join(there[:3])}{more}"],
            hint="--state DIR, or another name in `fleet:`",
        )  # fmt: skip
