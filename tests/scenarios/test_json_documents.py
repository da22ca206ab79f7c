"""What ``--json`` prints is what docs/reference/json.md says: no key more, none less, each of its type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.docs.documented import documented, is_a, matches, unseen, wrong
from tests.scenarios.fleet_stage import Stage

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]

KEYS = documented()


def same(command: str, *values: Any) -> None:
    """The page's keys of ``command`` are those of ``values`` together."""
    assert [fault for value in values for fault in wrong(value, KEYS[command])] == []
    assert unseen(list(values), KEYS[command]) == []


def said(stage: Stage, *words: str, expect: int = 0) -> Any:
    out = stage.run("--json", *words, expect=expect)
    return json.loads(out)


def test_the_page_is_read_as_it_is_meant() -> None:
    """Of the test itself: a page that could not be read would agree with everything."""
    assert KEYS["destroy"] == {"fleet": "text", "destroyed": "true or false"}
    assert matches("shards[].voters.REGION", ("shards", "[]", "voters", "us-east"))
    assert not matches("shards[].name", ("shards", "[]", "home"))
    assert [is_a("number", value) for value in (1, 1.5, True, None, "1")] == [True, True, False, False, False]
    assert [is_a("true or false", value) for value in (True, 1, None)] == [True, False, False]
    keys = {"a": "text", "b[].X": "number or null"}
    assert wrong({"a": "x", "b": [{"y": None}, {"z": 1}]}, keys) == []
    assert wrong({"a": 1, "b": [{"y": "x"}], "c": 1}, keys) == [
        "a is 1, documented as text", "b[].y is 'x', documented as number or null", "c is not documented",
    ]  # fmt: skip
    assert unseen([{"a": "x", "b": []}], keys) == ["b[].X"]


def test_of_the_file_alone(running_fleet: Stage, tmp_path: Path) -> None:
    fleet = running_fleet.root / "other.yaml"
    same("init", said(running_fleet, "init", str(fleet), "--example", "question-bank"))
    bad = tmp_path / "bad.yaml"
    bad.write_text("fleet: f\nregions: {here: {}}\nshards: {main: {vters: 2}}\n")
    same("check", said(running_fleet, "check", str(fleet)), said(running_fleet, "check", str(bad), expect=2))
    same("version", said(running_fleet, "version"))


def test_of_a_running_fleet(running_fleet: Stage) -> None:
    text = running_fleet.file.read_text()
    nothing = said(running_fleet, "plan")
    assert nothing["steps"] == []
    try:
        running_fleet.file.write_text(text + "settings: {work_mem: 5MB}\n")
        planned = said(running_fleet, "plan")
        # Notes are rare (a PostgreSQL that is not tested, etcd's silence): their place is told, and empty here.
        assert [*wrong(planned, KEYS["plan"]), *unseen([planned], KEYS["plan"])] == ["notes[]"]
        same("apply", said(running_fleet, "apply"))
    finally:
        running_fleet.file.write_text(text)
        running_fleet.run("apply")
    status = said(running_fleet, "status")
    assert status["healthy"], status["problems"]
    assert unseen([status], KEYS["status"]) == ["shards[].problems[]", "problems[]"], "nothing is wrong"
    assert wrong(status, KEYS["status"]) == []
    primaries = {"shards": [{"replicas": [shard["primary"]]} for shard in status["shards"]]}
    assert wrong(primaries, KEYS["status"]) == []
    same("sql", said(running_fleet, "sql", "--shard", "all", "-c", "select 1 as n, 'x' as text"))
    same("switchover", said(running_fleet, "switchover", "two"))
    said(running_fleet, "switchover", "two", "--to", "west-1")
    same("log", said(running_fleet, "log"))


def test_of_migrations(running_fleet: Stage) -> None:
    schema = running_fleet.root / "schema"
    more = schema / "0002_more.sql"
    more.write_text("create table more (n integer);\n")
    try:
        due = said(running_fleet, "migrate", str(schema), "--dry-run")
        same("migrate", due, said(running_fleet, "migrate", str(schema)))
        (schema / "0003_bad.sql").write_text("create table more (n integer);\n")
        failed = said(running_fleet, "migrate", str(schema), expect=5)
        assert wrong({"shards": failed["error"]["shards"]}, KEYS["migrate"]) == []
        assert set(failed["error"]["shards"][0]["failure"]) == {"place", "message", "sqlstate", "detail", "hint", "lost"}
    finally:
        (schema / "0003_bad.sql").unlink(missing_ok=True)


def test_of_errors(running_fleet: Stage, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("fleet: f\n")
    file = said(running_fleet, "-f", str(bad), "plan", expect=2)
    nowhere = said(running_fleet, "switchover", "three", expect=4)
    shards = said(running_fleet, "sql", "--shard", "all", "-c", "select nothing", expect=5)
    same("Errors", file, nowhere, shards)
    diagnostics = {"diagnostics": file["error"]["diagnostics"]}
    assert wrong(diagnostics, KEYS["check"]) == []
    assert wrong({"results": shards["error"]["shards"]}, KEYS["sql"]) == []
    error = shards["error"]["shards"][0]["error"] | {"exit_status": 5}
    assert wrong({"error": error}, KEYS["Errors"]) == []


def test_of_what_is_not_there(stage: Stage) -> None:
    same("destroy", said(stage, "destroy", "--yes"))
