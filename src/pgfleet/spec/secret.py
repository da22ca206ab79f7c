"""References to secrets: the file says where one is kept, and never the secret itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class SecretRef:
    """``env:NAME``: an environment variable. ``file:PATH``: a file's text; a relative path begins at the fleet's file."""

    kind: Literal["env", "file"]
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def is_reference(text: str) -> bool:
    """Whether ``text`` is meant as a reference, well-formed or not."""
    return text.startswith(("env:", "file:"))


def read_reference(text: str) -> SecretRef:
    """:raises ValueError: it names nothing; the message is a sentence."""
    kind, _, name = text.partition(":")
    if kind == "env":
        if _VARIABLE.fullmatch(name) is None:
            raise ValueError(f"`{name[:40]}` is not the name of an environment variable")
        return SecretRef("env", name)
    if kind == "file":
        if not name or "\0" in name:
            raise ValueError("`file:` names no file")
        return SecretRef("file", name)
    raise ValueError("a reference begins with `env:` or `file:`")
