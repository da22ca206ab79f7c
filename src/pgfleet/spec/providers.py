"""What each provider can do, as data: what the file asks of one that cannot is refused while it is read.

The drivers themselves are known to providers/catalog.py alone; a test compares its names with these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traits:
    """What a provider can do.

    :param provisions: it makes the servers, so the file says how many (voters, readers, sync); else they are given by
        DSNs.
    :param settings: PostgreSQL's parameters are its to set.
    :param poolers: every region has its pooler (``through: pooler``).
    :param switchover: it can change a shard's primary, planned.
    :param roles: a shard has roles of its own for owner, application and monitor; else the DSN's user is all of them.
    :param regions: a region's role (disaster recovery) is known to who elects, and to who routes.
    """

    provisions: bool
    settings: bool
    poolers: bool
    switchover: bool
    roles: bool
    regions: bool


PROVIDERS: Mapping[str, Traits] = {
    "local": Traits(provisions=True, settings=True, poolers=True, switchover=True, roles=True, regions=True),
    "existing": Traits(provisions=False, settings=False, poolers=False, switchover=False, roles=False, regions=False),
}

#: What a region has where the file says nothing.
DEFAULT = "local"
