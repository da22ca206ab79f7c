"""For whom the COMMIT of a block's transaction waits, by what its own session says. Pure."""

from __future__ import annotations

from typing import Literal

WaitsFor = Literal["replicas", "disk", "nobody"]

#: Asked before COMMIT: the setting, and the key that the block's transaction was begun with, which ends with it.
QUESTION = (
    "select pg_catalog.current_setting('synchronous_commit') as setting, pg_catalog.current_setting('pgfleet.key', true) as key"
)


def waits_for(setting: str, key: str | None) -> WaitsFor:
    """What the answer means. Without the key, the caller's own SQL has committed before, and who knows how."""
    if setting == "off" or not key:
        return "nobody"
    return "replicas" if setting in ("on", "remote_apply") else "disk"
