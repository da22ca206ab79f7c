"""``pgfleet status``: shards, nodes, roles, regions, lag, endpoints, what is wrong."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from pgfleet.cli import view
from pgfleet.units import format_duration, format_size

#: Seconds between two looks with --watch.
WATCH_EVERY = 1.0


def status(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every second, until interrupted.")] = False,
    endpoints: Annotated[bool, typer.Option("--endpoints", help="Also show where to connect, per region.")] = False,
) -> None:
    """The fleet as it is now.

    Everything is asked at once, and silence is shown, too. With --watch, --json writes one document per line and look."""
    from pgfleet.control.drivers import driver_of
    from pgfleet.control.status import status as look

    driver, fleet, folder = driver_of(context.obj)

    def looked() -> dict[str, object]:
        return asyncio.run(look(driver, fleet, folder))

    if watch:
        try:
            _watch(looked, endpoints=endpoints, as_json=context.obj.json)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None  # nothing was under way that could be said to be stopped
    elif context.obj.json:
        view.document(looked())
    else:
        show(looked(), endpoints=endpoints)


def _watch(looked: Callable[[], dict[str, object]], *, endpoints: bool, as_json: bool) -> None:
    """Until interrupted; a line a look with ``--json``, as ``log --follow`` has it."""
    while True:
        document = looked()
        if as_json:
            view.line(json.dumps(document, ensure_ascii=False))
        else:
            view.clear()
            show(document, endpoints=endpoints)
        time.sleep(WATCH_EVERY)


def show(document: dict[str, Any], *, endpoints: bool) -> None:
    """The document as tables, and what is wrong below."""
    rows = []
    for shard in document["shards"]:
        for node in [*([shard["primary"]] if shard["primary"] else []), *shard["replicas"]]:
            rows.append(_row(shard, node))
    columns = ["shard", "node", "region", "role", "state", "sync", "timeline", "lag", "behind", "address", "pid"]
    view.table(f"{document['fleet']} at {document['at']}", columns, rows)
    if endpoints:
        places = [
            (shard["name"], region, way.replace("_", "-"), uri)
            for shard in document["shards"]
            for region, ways in shard["endpoints"].items()
            for way, uri in ways.items()
        ]
        view.table("endpoints", ["shard", "region", "", "uri"], places)
    if document["problems"]:
        for problem in document["problems"]:
            view.line(view.paint(f"! {problem}", "red"))
    else:
        view.line(view.paint("everything is as it should be", "green"))


def _row(shard: dict[str, Any], node: dict[str, Any]) -> tuple[object, ...]:
    primary = node["role"] == "primary"
    lag, behind = node["lag_bytes"], node["lag_seconds"]
    good = node["state"] == ("running" if primary else "streaming")
    return (
        shard["name"], node["node"], node["region"],
        view.paint("primary", "bold") if primary else ("reader" if node["kind"] == "reader" else "replica"),
        view.paint(node["state"], "green" if good else "red"),
        "quorum" if node["sync"] else "", node["timeline"],
        "" if primary else "?" if lag is None else format_size(lag),
        "" if primary else "?" if behind is None else format_duration(round(behind, 3)),
        node["address"], node["pid"],
    )  # fmt: skip
