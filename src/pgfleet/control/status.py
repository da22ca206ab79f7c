"""Status: everything asked at once, then told as one document."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from pgfleet.control.words import ask_node
from pgfleet.errors import NotApplied
from pgfleet.facts.addresses import AddressBook
from pgfleet.facts.replication import NodeWord
from pgfleet.names import NodeName
from pgfleet.providers.driver import Driver
from pgfleet.report.status import status_document
from pgfleet.spec.fleet import Fleet

#: Seconds in which a node must answer to count as one that does.
ASK_WITHIN = 2.0


async def status(driver: Driver, fleet: Fleet, folder: Path) -> dict[str, object]:
    """The document of ``status --json``.

    :raises NotApplied: there is no such fleet here.
    """
    seen = await driver.observe()
    if seen.addresses is None:
        raise NotApplied(f"fleet {fleet.fleet!r} was never applied here", seen=[f"no {folder}"], hint="pgfleet apply")
    words = await ask_nodes(folder, seen.addresses)
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return status_document(fleet.fleet, at, fleet.shapes(), seen, words)


async def ask_nodes(folder: Path, book: AddressBook) -> dict[NodeName, NodeWord]:
    """Every node's own word, all asked at once."""
    words = await asyncio.gather(*(ask_node(folder, book, node, within=ASK_WITHIN) for node in book.nodes))
    return {node.name: word for node, word in zip(book.nodes, words, strict=True)}
