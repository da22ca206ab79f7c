"""The fleets that are proved on: the examples, and what is made of them for other subjects or another shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

#: The clone that this runs in: the schema of the example is not part of the package.
CLONE = Path(__file__).resolve().parents[3]
SCHEMA = CLONE / "examples" / "question-bank" / "schema"


def example(name: str) -> str:
    """The text of an example: ``question-bank-demo``, ``question-bank``, ``smallest``."""
    return files("pgfleet.spec").joinpath("examples", f"{name}.yaml").read_text(encoding="utf-8")


def balanced(counts: Mapping[str, int], shards: Sequence[str]) -> dict[str, list[str]]:
    """Which subjects each shard gets, so that the shards hold about equally many rows: the largest that is left goes to
    the shard that holds least. No two shards then differ by more than the largest subject.

    :param counts: rows by subject.
    """
    held = dict.fromkeys(shards, 0)
    found: dict[str, list[str]] = {shard: [] for shard in shards}
    for subject in sorted(counts, key=lambda s: (-counts[s], s)):
        shard = min(shards, key=lambda s: held[s])
        found[shard].append(subject)
        held[shard] += counts[subject]
    return found


def listing(subjects: Mapping[str, Iterable[str]]) -> str:
    """The demo's fleet with ``subjects`` listed by shard instead of its own."""

    def change(fleet: dict[str, Any]) -> None:
        fleet["tables"]["questions"]["place"] = {shard: sorted(names) for shard, names in subjects.items() if names}

    return changed("question-bank-demo", change, "its subjects listed by shard, so that each shard holds about as many rows")


def with_a_stronger_shard(shard: str) -> str:
    """The demo's fleet, but ``shard`` has five voters and its commits reach two replicas: what is left of it after the loss of
    its primary and a voter is a primary and two replicas, so commits need nobody who was lost."""

    def change(fleet: dict[str, Any]) -> None:
        fleet["shards"][shard] = {**fleet["shards"][shard], "voters": {"us-east": 2, "us-west": 2, "eu-west": 1}, "sync": 2}

    return changed("question-bank-demo", change, f"{shard} with five voters, its commits on three nodes")


def changed(name: str, change: Any, why: str) -> str:
    """The example ``name`` after ``change`` did something to it; as text, with ``why`` in its first line."""
    fleet = yaml.safe_load(example(name))
    change(fleet)
    text: str = yaml.safe_dump(fleet, sort_keys=False, allow_unicode=True, width=100)
    return f"# Made from the example {name}: {why}.\n{text}"
