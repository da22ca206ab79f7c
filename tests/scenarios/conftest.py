"""Fleets for the scenarios: one that all share, started once."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scenarios.fleet_stage import FILE, Stage


def make_stage(text: str = FILE) -> Stage:
    """A state root that the engines' user can pass, and a file in it."""
    root = Path(tempfile.mkdtemp(prefix="pgfleet-"))
    root.chmod(0o755)
    name = f"t-{uuid.uuid4().hex[:8]}"
    file = root / "fleet.yaml"
    file.write_text(text.format(name=name))
    return Stage(root, file, name)


def take_down(stage: Stage) -> None:
    """Whatever state it is in."""
    try:
        stage.run("destroy", "--yes")
    finally:
        stage.kill_everything()
        shutil.rmtree(stage.root, ignore_errors=True)


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A fleet that is not applied yet."""
    made = make_stage()
    yield made
    take_down(made)


@pytest.fixture(scope="module")
def running_fleet(shared_fleet: Stage) -> Stage:
    """A running fleet that all tests share: two shards, five nodes, at a file's start as it was made.

    Who breaks it leaves it whole; where its primaries are then is all the same.
    """
    shared_fleet.bring_home({"one": "east-1", "two": "west-1"})
    return shared_fleet


@pytest.fixture(scope="session")
def shared_fleet() -> Iterator[Stage]:
    made = make_stage()
    try:
        made.run("apply")
        os.environ["PGFLEET_STATE"] = str(made.root)
        schema = made.root / "schema"
        schema.mkdir()
        (schema / "0001_questions.sql").write_text(
            "-- tables: questions\n"
            "create table questions (subject text, id uuid default gen_random_uuid(), stem text, primary key (subject, id));\n"
        )
        made.run("migrate", str(schema))
        yield made
    finally:
        os.environ.pop("PGFLEET_STATE", None)
        take_down(made)
