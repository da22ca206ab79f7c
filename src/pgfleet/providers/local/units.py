"""Units: the processes of one fleet on this host, as the keeper is told them (``units.json``)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pgfleet.runtime.files import write_atomically

OnChange = Literal["restart", "reload", "none"]


@dataclass(frozen=True, slots=True)
class NodeUnit:
    """What the keeper must know of a unit that is a PostgreSQL node.

    :param member: Patroni's name of it, the value of the shard's leader key while it leads.
    """

    shard: str
    member: str
    data_dir: str


@dataclass(frozen=True, slots=True)
class Unit:
    """One process that shall run.

    :param name: ``etcd/1``, ``node/stem/us-east-1``, ``pgbouncer/us-east``; it is a file's name too (see :attr:`stem`).
    :param env: the whole environment; the keeper adds ``PGFLEET_UNIT`` and ``PGFLEET_DIGEST``, to find it again by.
    :param user: the user it runs as; None = as the keeper runs.
    :param isolate: in pid, mount and ipc namespaces of its own: the kernel ends all of it with its first process.
    :param log: file that its output is appended to.
    :param digest: of everything it reads at start; a change leads to ``on_change``.
    :param reload_signal: what makes it read its files again: ``HUP`` for most, ``USR2`` for HAProxy's master.
    :param nofile: open files it may have.
    """

    name: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    log: str
    user: str | None = None
    isolate: bool = False
    node: NodeUnit | None = None
    digest: str = ""
    on_change: OnChange = "restart"
    reload_signal: Literal["HUP", "USR2"] = "HUP"
    nofile: int = 1024

    @property
    def stem(self) -> str:
        """The name without slashes; names hold no dots, so two units never share it."""
        return self.name.replace("/", ".")

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Unit:
        node = raw.get("node")
        return cls(**{**raw, "argv": tuple(raw["argv"]), "node": NodeUnit(**node) if node else None})


@dataclass(frozen=True, slots=True)
class Units:
    """Everything that shall run here, in the order it is started."""

    fleet: str
    units: tuple[Unit, ...] = field(default=())

    def __iter__(self) -> Iterator[Unit]:
        return iter(self.units)

    def to_json(self) -> str:
        return json.dumps({"fleet": self.fleet, "units": [asdict(unit) for unit in self.units]}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Units:
        """:raises ValueError: the text is not a list of units, or two have one name."""
        try:
            raw = json.loads(text)
            units = tuple(Unit.from_json(unit) for unit in raw["units"])
            if len({unit.name for unit in units}) < len(units):
                raise ValueError("two units have one name")
            return cls(raw["fleet"], units)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a list of units: {error!r}") from error


def read_units(folder: Path) -> Units:
    """What shall run in ``folder``; nothing when there is no list yet."""
    path = folder / "units.json"
    return Units.from_json(path.read_text()) if path.exists() else Units(folder.name)


def write_units(folder: Path, fleet: str, units: Iterable[Unit]) -> bool:
    """Write the list (0600: an environment may hold what others need not know); true when it changed.

    The keeper acts on it when it is told to (``KeeperClient.sync``) and when it starts.
    """
    return write_atomically(folder / "units.json", Units(fleet, tuple(units)).to_json(), mode=0o600)
