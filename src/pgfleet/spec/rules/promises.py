"""Promises against shapes: what cannot be kept is said here, with the arithmetic, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pgfleet.spec import codes
from pgfleet.spec.promises import Loss
from pgfleet.spec.rules.finding import Finding, Subject
from pgfleet.spec.rules.shapes import flow, given
from pgfleet.spec.shape import ShardShape
from pgfleet.units import format_duration

#: Seconds. A death that is confirmed: fence, revoke, elect (measured 0.33 to 0.48).
CRASH_FLOOR = 0.5
#: Seconds. The same where nobody is left to confirm: until the node that died is back (measured 3.4 to 3.7).
CRASH_ALONE = 4.0
#: Seconds. Patroni's ttl (20 at least) runs out, then one loop and the election.
SILENT_FLOOR = 22.0
ETCD_REGIONS = 3
MONTH = 30 * 86400.0
_FLOORS = {"crash": CRASH_FLOOR, "silent": SILENT_FLOOR, "region": SILENT_FLOOR}
_WHY = {
    "crash": "fencing and election take that long",
    "silent": "Patroni's lease lasts 20 s at least, and who is silent may still write until it ends",
    "region": "Patroni's lease lasts 20 s at least, and who is silent may still write until it ends",
}


def recovery_is_possible(subject: Subject) -> Iterator[Finding]:
    """No rto below what the engines can do."""
    if not subject.fleet.traits.provisions:
        return  # the floors are Patroni's as we run it; what others run may be quicker
    places = [("promises",)] + [("groups", g, "promises") for g in subject.fleet.groups]
    places += [("shards", s, "promises") for s in subject.fleet.shards]
    for path, promises in zip(
        places,
        [subject.fleet.promises]
        + [group.promises for group in subject.fleet.groups.values()]
        + [shard.promises for shard in subject.fleet.shards.values()],
        strict=True,
    ):
        for fault, floor in _FLOORS.items():
            loss: Loss | None = getattr(promises, fault)
            if loss is not None and loss.rto is not None and loss.rto < floor:
                message = (
                    f"a promise for {fault} of {format_duration(loss.rto)} cannot be kept: at least "
                    f"{format_duration(floor)}, because {_WHY[fault]}"
                )
                yield Finding(codes.RTO_FLOOR, (*path, fault, "rto"), message, f"rto: {format_duration(floor)}")


def somebody_can_take_over(subject: Subject) -> Iterator[Finding]:
    for name, shape in given(subject):
        if sum(shape.voters.values()) != 1:
            continue
        promises = subject.fleet.promises_of(name)
        if kept := [fault for fault in _FLOORS if _promised(getattr(promises, fault))]:
            nothing = ", ".join(f"{fault}: none" for fault in kept)
            message = f"`{name}` has one voter, so nobody can take over; promised is something for {', '.join(kept)}"
            hint = f"voters: {{home: 2}}   or, to promise nothing:   promises: {{{nothing}}}"
            yield Finding(codes.NOBODY_LEFT, subject.said(name, "voters"), message, hint, shard=name)


def _promised(loss: Loss | None) -> bool:
    return loss is not None and (loss.rto is not None or loss.rpo is not None)


def somebody_is_left_to_confirm(subject: Subject) -> Iterator[Finding]:
    for name, shape in given(subject):
        promises = subject.fleet.promises_of(name)
        replicas, crash = shape.quorum.replicas, promises.crash
        if not shape.sync or shape.sync != replicas or crash is None or crash.rto is None:
            continue
        if not CRASH_FLOOR <= crash.rto < CRASH_ALONE:
            continue  # kept all the same, or told already
        others = f"all its {replicas} voting replicas" if replicas > 1 else "the only voting replica"
        said = subject.said(name, "promises", "crash")
        promise = ", unless the file says otherwise" if said == ("shards", name) else subject.line(said)
        message = (
            f"a commit of `{name}` waits for {others}: when its primary crashes, writes wait until that node is back, about "
            f"{format_duration(CRASH_ALONE)}; promised for crash is {format_duration(crash.rto)}{promise}"
        )
        hint = f"sync: {shape.sync - 1}" if shape.sync > 1 else f"voters: {flow(_one_more(shape))}"
        hint += f"   or promises: {{crash: {{rto: 5 s{', rpo: 0' if crash.rpo == 0 else ''}}}}}"
        yield Finding(codes.LEFT_ALONE, subject.said(name, "voters"), message, hint, "warning", shard=name)


def _one_more(shape: ShardShape) -> dict[str, int]:
    return {**shape.voters, shape.home: shape.voters.get(shape.home, 0) + 1}


def nothing_acknowledged_is_lost(subject: Subject) -> Iterator[Finding]:
    for name, shape in given(subject):
        if shape.sync or sum(shape.voters.values()) < 2:
            continue
        promises = subject.fleet.promises_of(name)
        broken = [fault for fault in _FLOORS if (loss := getattr(promises, fault)) is not None and loss.rpo == 0]
        if broken:
            message = (
                f"`sync: 0` of `{name}` acknowledges commits that only the primary has; promised is rpo 0 for {', '.join(broken)}"
            )
            yield Finding(codes.ASYNCHRONOUS, subject.said(name, "sync"), message, "sync: 1", shard=name)
        elif any((loss := getattr(promises, fault)) is not None and loss.rpo for fault in _FLOORS):
            message = f"with `sync: 0` nothing bounds in time what `{name}` may lose"
            yield Finding(codes.NOT_BOUNDED, subject.said(name, "sync"), message, "sync: 1", "warning", shard=name)


def regions_can_be_lost(subject: Subject) -> Iterator[Finding]:
    for name, shape in given(subject):
        loss = subject.fleet.promises_of(name).region
        if loss is None or not _promised(loss) or sum(shape.voters.values()) < 2 or shape.home not in shape.voters:
            continue
        if len(subject.fleet.regions) < ETCD_REGIONS:
            declared = len(subject.fleet.regions)
            message = f"a promise for the loss of a region needs etcd in {ETCD_REGIONS} regions; {declared} are declared"
            hint = "declare a third region, or promises: {region: none}"
            yield Finding(codes.ETCD_REGIONS, subject.said(name, "promises", "region"), message, hint, shard=name)
            continue
        if shape.sync > shape.quorum.replicas:
            continue  # told already
        yield from _region_loss(subject, shape, loss)


def _region_loss(subject: Subject, shape: ShardShape, loss: Loss) -> Iterator[Finding]:
    name, quorum = shape.name, shape.quorum
    where = subject.said(name, "voters")
    promise = subject.line(subject.said(name, "promises", "region"))
    for region in sorted(shape.voters, key=lambda r: r != shape.home):
        lost = shape.voters[region] - 1
        if quorum.survives_region(region, shape.voters, primary_in=region):
            continue
        copies = any(r != region for r in (*shape.voters, *shape.readers))
        if loss.rto is None and loss.rpo and copies:
            continue  # only data was promised, and there is a copy elsewhere
        remaining = quorum.replicas - lost
        if remaining == 0:
            message = (
                f"all voters of `{name}` are in {region}: when it is lost, nobody is left to elect; "
                f"the promise for region{promise} cannot be kept"
            )
        else:
            message = (
                f"when {region} is lost with its {shape.voters[region]} voters of `{name}`, {remaining} of "
                f"{quorum.replicas} voting replicas remain and an election needs {quorum.votes_needed}; "
                f"the promise for region{promise} cannot be kept"
            )
        if region == shape.home:
            yield Finding(codes.REGION_LOSS, where, message, _remedy(subject, shape, lost, remaining), shard=name)
        else:
            message = message.replace(f"when {region} is lost", f"after a failover, when {region} is lost", 1)
            yield Finding(codes.REGION_LOSS, where, message, _remedy(subject, shape, lost, remaining), "warning", shard=name)


def _remedy(subject: Subject, shape: ShardShape, lost: int, remaining: int) -> str:
    if remaining > 0:
        return f"sync: {lost + 1}"
    residency = subject.fleet.shards[shape.name].residency
    others = [region for region in subject.fleet.regions if region != shape.home and (not residency or region in residency)]
    if not others:
        return "promises: {region: none}"
    spread = ", ".join(f"{region}: 1" for region in [shape.home, *others][:3])
    return f"voters: {{{spread}}}"


def availability_is_reachable(subject: Subject) -> Iterator[Finding]:
    share = subject.fleet.promises.availability
    silent = subject.fleet.promises.silent
    if share is None or silent is None or silent.rto is None:
        return
    allowed = MONTH * (1 - share)
    if silent.rto > allowed:
        message = (
            f"{share * 100:g} % of a month leaves {format_duration(round(allowed, 1))} for outages; "
            f"one silent machine, recovered as promised, takes {format_duration(silent.rto)}"
        )
        reachable = math.floor(max(1 - silent.rto / MONTH, 0) * 10_000) / 100
        yield Finding(codes.AVAILABILITY, ("promises", "availability"), message, f"availability: {reachable:g} %", "warning")
