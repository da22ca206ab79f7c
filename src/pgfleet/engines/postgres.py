"""PostgreSQL's binaries: which majors are on this host, and where."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pgfleet.errors import PostgresMissing

#: What CI tests. Newer majors are accepted where their binaries are, and said to be untested.
TESTED = (15,)
OLDEST = 15
#: Where Debian's and the PostgreSQL project's packages put a major's server binaries.
DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """One major version on this host."""

    major: int
    folder: Path

    @property
    def tested(self) -> bool:
        return self.major in TESTED


def installed() -> tuple[PostgresBinaries, ...]:
    """Every major whose server is here, the oldest first: Debian's folders, and ``pg_config`` on PATH."""
    found: dict[int, Path] = {}
    for folder in DEBIAN.glob("*/bin"):
        if folder.parent.name.isdecimal() and (folder / "initdb").exists():
            found[int(folder.parent.name)] = folder
    initdb = shutil.which("initdb")
    if initdb is not None:
        answer = subprocess.run([initdb, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
        version = re.search(r"\(PostgreSQL\) (\d+)", answer)
        if version is not None:
            found.setdefault(int(version[1]), Path(initdb).resolve().parent)
    return tuple(PostgresBinaries(major, found[major]) for major in sorted(found))


def find_postgres(major: int) -> PostgresBinaries:
    """The binaries of ``major``.

    :raises PostgresMissing: they are not on this host; says which are.
    """
    here = installed()
    for binaries in here:
        if binaries.major == major:
            return binaries
    usable = [str(b.major) for b in here if b.major >= OLDEST]
    raise PostgresMissing(
        f"PostgreSQL {major} is not installed on this host",
        seen=[f"installed: {', '.join(usable) or 'none'}"],
        hint=f"postgres: {usable[-1]}" if usable else f"apt-get install postgresql-{major}",
    )
