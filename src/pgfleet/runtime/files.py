"""Files: written whole or not at all, with the mode they shall have from their first byte."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: str | bytes, *, mode: int = 0o644, owner: tuple[int, int] | None = None) -> bool:
    """Put ``content`` at ``path`` by rename; true when the file was not already exactly that.

    The temporary file is made 0600 (mkstemp), so a secret is never readable for a moment.

    :param owner: uid and gid, for engines that run as another user.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        seen = path.stat()
        if path.read_bytes() == data and seen.st_mode & 0o7777 == mode and (owner is None or (seen.st_uid, seen.st_gid) == owner):
            return False
    except FileNotFoundError:
        pass
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if owner is not None:
            os.chown(temporary, *owner)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True


def make_folder(path: Path, *, mode: int = 0o755, owner: tuple[int, int] | None = None) -> None:
    """Make ``path`` and its missing parents, and give it ``mode`` and ``owner``; parents that are made get 0755, whatever
    the umask: engines run as another user and must pass."""
    for parent in reversed(path.parents):
        if not parent.exists():
            parent.mkdir(exist_ok=True)
            parent.chmod(0o755)
    path.mkdir(exist_ok=True)
    if owner is not None:
        os.chown(path, *owner)
    path.chmod(mode)
