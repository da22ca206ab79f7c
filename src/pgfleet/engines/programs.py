"""Where the other engines' programs are: etcd, PgBouncer, HAProxy."""

from __future__ import annotations

import os
import shutil

from pgfleet.errors import EnginesMissing

#: Debian puts servers into sbin folders, which an ordinary user's PATH does not have.
_ALSO = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def find_program(name: str) -> str:
    """The absolute path of ``name``.

    :raises EnginesMissing: it is not installed.
    """
    path = os.pathsep.join([os.environ.get("PATH", "/usr/bin:/bin"), *_ALSO])
    found = shutil.which(name, path=path)
    if found is None:
        raise EnginesMissing(f"{name} is not installed on this host", seen=[f"not in {path}"], hint="script/bootstrap")
    return found
