"""PostgreSQL's parameters and the numbers of connections."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from pgfleet.spec import codes
from pgfleet.spec.document import Path
from pgfleet.spec.forced import why_forbidden
from pgfleet.spec.pools import RESERVED
from pgfleet.spec.rules.finding import Finding, Subject

_PARAMETER = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?")


def settings_are_the_owners(subject: Subject) -> Iterator[Finding]:
    fleet = subject.fleet
    places: list[tuple[Path, dict[str, str]]] = [(("settings",), fleet.settings)]
    places += [(("groups", name, "settings"), group.settings) for name, group in fleet.groups.items()]
    places += [(("shards", name, "settings"), shard.settings) for name, shard in fleet.shards.items()]
    for path, settings in places:
        for parameter, value in settings.items():
            if why := why_forbidden(parameter):
                message = f"`{parameter}` is not to be set: {why}"
                yield Finding(codes.FORBIDDEN_SETTING, (*path, parameter), message, "remove it", key=True)
            elif _PARAMETER.fullmatch(parameter) is None:
                folded = parameter.lower() if _PARAMETER.fullmatch(parameter.lower()) else ""
                message = f"`{parameter}` is not the name of a PostgreSQL parameter"
                yield Finding(codes.SETTING_NAME, (*path, parameter), message, folded or "remove it", key=True)
            elif "\n" in value or "\0" in value:
                message = f"`{parameter}` has a line break in its value"
                yield Finding(codes.VALUE, (*path, parameter), message, json.dumps(re.split("[\n\0]", value)[0]))


def connections_suffice(subject: Subject) -> Iterator[Finding]:
    fleet, pools = subject.fleet, subject.fleet.pools
    free = pools.max_connections - RESERVED
    regions = len(fleet.regions) if fleet.traits.poolers else 0
    poolers = regions * pools.default_pool_size
    if poolers > free:
        each = f"{regions} region{'s' if regions > 1 else ''} x default_pool_size {pools.default_pool_size} = {poolers}"
        limit = f"max_connections {pools.max_connections} leaves {free}"
        message = f"the poolers may open {each} connections to one primary; {limit}"
        fits = max(free, 0) // max(regions, 1)
        hint = f"pools: {{default_pool_size: {fits}}}" if fits else f"pools: {{max_connections: {poolers + RESERVED}}}"
        if fleet.through == "pooler":
            yield Finding(codes.CONNECTIONS, ("pools", "default_pool_size"), message, hint)
        else:
            yield Finding(codes.CONNECTIONS, ("pools", "default_pool_size"), message, hint, "warning")
    if fleet.through == "direct" and pools.processes is not None:
        clients = pools.processes * pools.per_process
        if clients > free:
            message = (
                f"{pools.processes} processes x per_process {pools.per_process} = {clients} connections to one node; "
                f"max_connections {pools.max_connections} leaves {free}"
            )
            yield Finding(codes.CONNECTIONS, ("pools", "processes"), message, "through: pooler")


def pools_have_clients(subject: Subject) -> Iterator[Finding]:
    pools = subject.fleet.pools
    if pools.default_pool_size > pools.max_client_conn:
        message = f"default_pool_size {pools.default_pool_size} is more than max_client_conn {pools.max_client_conn}"
        hint = f"default_pool_size: {pools.max_client_conn}"
        yield Finding(codes.POOL_SIZE, ("pools", "default_pool_size"), message, hint, "warning")
