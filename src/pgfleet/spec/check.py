"""``check``: the file read as a promise, not only as syntax."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pgfleet.diagnostics import Diagnostic
from pgfleet.spec.fleet import Fleet
from pgfleet.spec.read import Loaded
from pgfleet.spec.rules import promises, providers, references, settings, shapes, tables
from pgfleet.spec.rules.finding import Finding, Rule, Subject

RULES: tuple[Rule, ...] = (
    references.something_is_declared,
    references.names_are_free,
    references.providers_are_there,
    providers.fleets_have_one_provider,
    providers.shards_are_their_providers,
    providers.providers_can_do_what_is_asked,
    references.regions_are_declared,
    references.groups_are_declared,
    references.shards_are_declared,
    references.tables_follow_tables,
    shapes.homes_have_voters,
    shapes.regions_are_counted_once,
    shapes.sync_is_possible,
    shapes.residency_is_kept,
    providers.given_servers_are_told_apart,
    providers.given_servers_have_places,
    providers.dsns_can_be_read,
    shapes.nodes_are_few,
    shapes.postgres_is_tested,
    promises.recovery_is_possible,
    promises.somebody_can_take_over,
    promises.somebody_is_left_to_confirm,
    promises.nothing_acknowledged_is_lost,
    promises.regions_can_be_lost,
    promises.availability_is_reachable,
    tables.keys_are_placed_once,
    tables.tables_have_a_place,
    tables.spreads_spread,
    tables.shards_are_used,
    tables.lookups_can_work,
    tables.partitions_add_up,
    settings.settings_are_the_owners,
    settings.connections_suffice,
    settings.pools_have_clients,
)


def check(loaded: Loaded) -> list[Diagnostic]:
    """Every mistake and doubt, of text, structure and meaning, in the order of the file."""
    diagnostics = list(loaded.mistakes)
    if loaded.fleet is not None and not any(len(path) == 1 and path[0] in loaded.names for path in loaded.broken):
        subject = Subject(loaded.fleet, loaded.positions, loaded.names)
        found = [finding for rule in RULES for finding in rule(subject)]
        for finding in _joined(_grounded(loaded, loaded.fleet, found)):
            where = loaded.positions.key(*finding.path) if finding.key else loaded.positions.of(*finding.path)
            diagnostics.append(Diagnostic(finding.code, where, finding.message, finding.hint, finding.severity))
    # Stable: what stands at one place is told in the order of the rules.
    diagnostics.sort(key=lambda diagnostic: diagnostic.position)
    return diagnostics


def _grounded(loaded: Loaded, fleet: Fleet, found: Iterable[Finding]) -> Iterator[Finding]:
    """Without what only follows from a part that could not be read: nobody is to look for a mistake that is none."""
    broken = {path[:2] for path in loaded.broken} | {path[:1] for path in loaded.broken if len(path) == 1}
    lost_names = any(len(path) == 2 and path[0] in loaded.names for path in loaded.broken)
    shapeless: set[str] = set()  # shards whose shape nobody knows, because of their group
    for name, shard in fleet.shards.items():
        group = ("groups", shard.group or "")
        if ("shards", name) in broken or group in broken or (shard.group and shard.group not in fleet.groups):
            shapeless.add(name)
    for finding in found:
        about = {finding.path[:1], finding.path[:2]}
        if finding.shard not in shapeless and not (about & broken) and not (lost_names and finding.severity == "warning"):
            yield finding


def _joined(found: Iterable[Finding]) -> Iterator[Finding]:
    """One finding for many shards that have it from the same line of a group."""
    first: dict[tuple[object, ...], list[Finding]] = {}
    for finding in found:
        key: tuple[object, ...] = (finding.code, finding.path, finding.severity, finding.message)
        if finding.shard and finding.path[:2] != ("shards", finding.shard):
            key = (finding.code, finding.path, finding.severity)
        first.setdefault(key, []).append(finding)
    for alike in first.values():
        others = len({finding.shard for finding in alike}) - 1
        more = f" (and {others} more shard{'s' if others > 1 else ''} alike)" if others > 0 else ""
        yield replace(alike[0], message=alike[0].message + more)
