"""Whether another user can enter a folder, decided from what stat(2) says."""

from __future__ import annotations

import os

import pytest

from pgfleet.providers.local.passable import may_enter


def folder(mode: int, uid: int = 0, gid: int = 0) -> os.stat_result:
    return os.stat_result((0o040000 | mode, 0, 0, 2, uid, gid, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("seen", "enters"),
    [
        (folder(0o755), True),
        (folder(0o700), False),
        (folder(0o711), True),
        (folder(0o744), False),  # to read a folder's names is not to enter it
        (folder(0o700, uid=7), True),
        (folder(0o077, uid=7), False),  # the owner is told by the owner's rights alone
        (folder(0o710, gid=8), True),
        (folder(0o701, gid=8), False),
        (folder(0o710, gid=9), False),
    ],
)
def test_the_first_that_fits_decides(seen: os.stat_result, enters: bool) -> None:
    assert may_enter(seen, 7, [8]) is enters
