"""What a provider has no means for is refused here, by its traits, before anything runs; and DSNs are read as far as the
file says them."""

from __future__ import annotations

from collections.abc import Iterator

from pgfleet.spec import codes
from pgfleet.spec.document import Path
from pgfleet.spec.dsn import NotADsn, has_password, parse_dsn
from pgfleet.spec.providers import PROVIDERS
from pgfleet.spec.region import HOME
from pgfleet.spec.rules.finding import Finding, Subject
from pgfleet.spec.secret import is_reference, read_reference

#: What a shard says of servers that somebody makes; there is nobody who would, where they are given.
_SHAPE = ("group", "voters", "readers", "sync", "settings")
#: Of ``pools``: what is a pooler's.
_POOLERS = ("max_client_conn", "default_pool_size", "query_wait_timeout")


def fleets_have_one_provider(subject: Subject) -> Iterator[Finding]:
    fleet = subject.fleet
    for name, region in fleet.regions.items():
        if region.provider != fleet.provider and {region.provider, fleet.provider} <= PROVIDERS.keys():
            message = (
                f"`{name}` is of provider {region.provider} and `{next(iter(fleet.regions))}` of {fleet.provider}; "
                "a fleet, and so each of its shards, has one provider"
            )
            yield Finding(codes.ONE_PROVIDER, ("regions", name), message, f"{name}: {{provider: {fleet.provider}}}", key=True)


def _of_one(subject: Subject) -> bool:
    return subject.fleet.provider in PROVIDERS and not any(fleets_have_one_provider(subject))


def shards_are_their_providers(subject: Subject) -> Iterator[Finding]:
    """By DSNs and bare where servers are given; by a shape, and without DSNs, where they are made."""
    if not _of_one(subject):
        return
    fleet = subject.fleet
    for name, shard in fleet.shards.items():
        path: Path = ("shards", name)
        if shard.primary is None and shard.replicas:
            message = f"`{name}` has DSNs of replicas, and none of a primary"
            yield Finding(codes.EXISTING, (*path, "replicas"), message, "primary: env:PRIMARY_DSN")
        elif shard.primary is None and not fleet.traits.provisions:
            message = f"provider {fleet.provider} makes no servers, and `{name}` does not say which it is"
            yield Finding(codes.EXISTING, path, message, f"primary: {_variable(name)}", key=True)
        elif shard.primary is not None and fleet.traits.provisions:
            message = f"`{name}` is given by DSNs, and provider {fleet.provider} makes its servers itself"
            yield Finding(codes.EXISTING, (*path, "primary"), message, "voters: {home: 2}")
        elif shard.primary is not None:
            said = [field for field in _SHAPE if subject.positions.says(*path, field)]
            if said:
                message = f"`{name}` is given by DSNs: its {', '.join(said)} would be for whoever runs those servers to say"
                yield Finding(codes.EXISTING, (*path, said[0]), message, f"remove {', '.join(said)}", key=True)


def providers_can_do_what_is_asked(subject: Subject) -> Iterator[Finding]:
    """The parts of the file that are nobody's where its provider has no such means."""
    fleet, traits = subject.fleet, subject.fleet.traits
    if not _of_one(subject):
        return
    if fleet.settings and not traits.settings:
        message = f"provider {fleet.provider} sets no parameters: they are whose the servers are"
        yield Finding(codes.TRAIT, ("settings",), message, "remove settings", key=True)
    if not traits.poolers:
        if fleet.through == "pooler":
            message = f"provider {fleet.provider} runs no pooler to go through"
            yield Finding(codes.TRAIT, ("through",), message, "through: direct")
        for key in _POOLERS:
            if subject.positions.says("pools", key):
                message = f"`{key}` is a pooler's, and provider {fleet.provider} runs none"
                yield Finding(codes.TRAIT, ("pools", key), message, f"remove {key}", key=True)
    if not traits.regions:
        for name, region in fleet.regions.items():
            if region.role is not None:
                message = f"provider {fleet.provider} cannot keep `{name}` for disasters: its servers are read like any other"
                yield Finding(codes.TRAIT, ("regions", name, "role"), message, "remove role")


def given_servers_are_told_apart(subject: Subject) -> Iterator[Finding]:
    first: dict[str, tuple[str, Path]] = {}
    for shard in subject.fleet.shards:
        for node in subject.fleet.given(shard):
            if node.dsn not in first:
                first[node.dsn] = shard, node.path
                continue
            other, where = first[node.dsn]
            line = subject.positions.of(*where).line
            message = f"this server of `{shard}` is in line {line} a server of `{other}` already"
            yield Finding(codes.EXISTING, node.path, message, "a DSN for each server")


def given_servers_have_places(subject: Subject) -> Iterator[Finding]:
    """The regions of replicas, and a residency that one of them breaks."""
    for name, shard in subject.fleet.shards.items():
        home = subject.fleet.home(name)
        if isinstance(shard.replicas, dict) and home and HOME in shard.replicas and home in shard.replicas:
            message = f"`home` of `{name}` is {home}, which is also there under its own name"
            yield Finding(codes.SAID_TWICE, ("shards", name, "replicas"), message, f"{home}: […]")
        if not shard.residency or not set(shard.residency) <= set(subject.names["regions"]):
            continue
        for node in subject.fleet.given(name):
            if node.name.region not in shard.residency:
                message = f"a server of `{name}` in {node.name.region} breaks its residency ({', '.join(shard.residency)})"
                yield Finding(
                    codes.RESIDENCY, node.path, message, f"residency: [{', '.join((*shard.residency, node.name.region))}]"
                )


def dsns_can_be_read(subject: Subject) -> Iterator[Finding]:
    for name in subject.fleet.shards:
        for node in subject.fleet.given(name):
            variable = _variable(name)
            if is_reference(node.dsn):
                try:
                    read_reference(node.dsn)
                except ValueError as error:
                    yield Finding(codes.DSN, node.path, f"{error}", variable)
            elif has_password(node.dsn):
                message = f"a DSN of `{name}` has its password in the file"
                yield Finding(codes.SECRET_IN_FILE, node.path, message, variable)
            else:
                try:
                    parse_dsn(node.dsn)
                except NotADsn as error:
                    yield Finding(codes.DSN, node.path, f"`{name}`: {error.message}", error.hint or variable)


def _variable(shard: str) -> str:
    return f"env:{shard.upper().replace('-', '_')}_DSN"
