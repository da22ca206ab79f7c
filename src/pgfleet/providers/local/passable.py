"""Whether the user that the engines run as can enter the folders above a fleet's: root's own home, say, it cannot."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pgfleet.errors import StateUnusable
from pgfleet.providers.local.credentials import EngineUser


def refuse_impassable(folder: Path, user: EngineUser) -> None:
    """:raises StateUnusable: a folder above ``folder`` is closed to ``user``. Of those that are there: what we make is open."""
    if user.name is None:
        return  # the engines run as we do
    groups = os.getgrouplist(user.name, user.gid)
    for parent in reversed(folder.parents):
        if not parent.exists():
            return
        if not may_enter(parent.stat(), user.uid, groups):
            raise StateUnusable(
                f"user {user.name}, as whom the engines run, cannot enter {parent}", seen=[f"the fleet's folder is {folder}"],
                hint=f"--state /var/lib/pgfleet   or   chmod o+x {parent}",
            )  # fmt: skip


def may_enter(seen: os.stat_result, uid: int, groups: list[int]) -> bool:
    """The first of owner, group and others that fits decides (path_resolution(7))."""
    if seen.st_uid == uid:
        return bool(seen.st_mode & stat.S_IXUSR)
    if seen.st_gid in groups:
        return bool(seen.st_mode & stat.S_IXGRP)
    return bool(seen.st_mode & stat.S_IXOTH)
