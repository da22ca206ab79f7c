"""PostgreSQL's parameters and the numbers of connections."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from pgfleet.spec import codes
from pgfleet.spec.document import Path
from pgfleet.spec.fleet import Fleet
from pgfleet.spec.forced import why_forbidden
from pgfleet.spec.pools import PROBES, RESERVED
from pgfleet.spec.rules.finding import Finding, Severity, Subject

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
    limit = f"max_connections {pools.max_connections} leaves {max(free, 0)}"
    regions = len(fleet.regions) if fleet.traits.poolers else 0
    poolers = regions * pools.default_pool_size
    each = f"{regions} region{'s' if regions > 1 else ''} x default_pool_size {pools.default_pool_size}"
    # Where there is no replica, the primary answers what is read as well.
    alone = any(sum(shape.voters.values()) + sum(shape.readers.values()) == 1 for shape in fleet.shapes())
    path: Path = ("pools", "default_pool_size")
    if free <= 0 and not poolers and pools.processes is None:
        message = f"{limit} for clients: {RESERVED} are kept for people, monitoring and migrations"
        fewest = pools.per_process + PROBES + RESERVED
        yield Finding(codes.CONNECTIONS, ("pools", "max_connections"), message, f"max_connections: {fewest}", "warning")
    elif poolers > max(free, 0):
        message = f"the poolers may open {each} = {poolers} connections to one primary; {limit}"
        yield Finding(codes.CONNECTIONS, path, message, _fits(free, regions, poolers), _severity(fleet))
    elif fleet.through == "pooler" and 2 * poolers > free:
        when = "a primary without replicas" if alone else "a primary whose replicas are all lost"
        message = f"the poolers may open {each}, for writes and for reads, = {2 * poolers} connections to {when}; {limit}"
        severity: Severity = "error" if alone else "warning"
        yield Finding(codes.CONNECTIONS, path, message, _fits(free, 2 * regions, 2 * poolers), severity)
    if pools.processes is None:
        return
    if fleet.through == "direct":
        clients = pools.processes * (pools.per_process + PROBES)
        if clients > free:
            sums = f"{pools.processes} processes x (per_process {pools.per_process} + {PROBES}) = {clients}"
            message = f"{sums} connections to one node; {limit}"
            fits = free // pools.processes - PROBES
            fewer = f"per_process: {fits}" if fits > 0 else f"max_connections: {clients + RESERVED}"
            hint = "through: pooler" if fleet.traits.poolers else fewer
            yield Finding(codes.CONNECTIONS, ("pools", "processes"), message, hint)
    else:
        shards = len(fleet.shards)
        clients = pools.processes * pools.per_process * shards
        if clients > pools.max_client_conn:
            message = (
                f"{pools.processes} processes x per_process {pools.per_process} x {shards} shard{'s' if shards > 1 else ''} = "
                f"{clients} connections to one pooler, if they are all in one region; max_client_conn is {pools.max_client_conn}"
            )
            yield Finding(codes.CONNECTIONS, ("pools", "processes"), message, f"pools: {{max_client_conn: {clients}}}")


def _fits(free: int, pools: int, wanted: int) -> str:
    fits = max(free, 0) // max(pools, 1)
    return f"pools: {{default_pool_size: {fits}}}" if fits else f"pools: {{max_connections: {wanted + RESERVED}}}"


def _severity(fleet: Fleet) -> Severity:
    return "error" if fleet.through == "pooler" else "warning"


def pools_have_clients(subject: Subject) -> Iterator[Finding]:
    pools = subject.fleet.pools
    if pools.default_pool_size > pools.max_client_conn:
        message = f"default_pool_size {pools.default_pool_size} is more than max_client_conn {pools.max_client_conn}"
        hint = f"default_pool_size: {pools.max_client_conn}"
        yield Finding(codes.POOL_SIZE, ("pools", "default_pool_size"), message, hint, "warning")
