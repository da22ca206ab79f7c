"""What every part of the file has in common: it cannot change, and it knows every key it may have."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A mapping in the file. ``model_dump(mode="json")`` gives the file's own syntax back."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        defer_build=True,  # schemas are built when the first file is read, not when a command prints its help
        serialize_by_alias=True,
    )
