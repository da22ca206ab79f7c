"""Applying: interrupted at any moment, twice at once, changed, refused, side by side with another fleet."""

from __future__ import annotations

import asyncio
import subprocess
import time

import asyncpg
import pytest
from tests.scenarios.conftest import make_stage, take_down
from tests.scenarios.fleet_stage import FILE, Stage, kill

import pgfleet

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]

SMALL = """
fleet: {name}
regions: {{here: {{provider: local}}}}
shards: {{main: {{voters: {{here: 2}}}}}}
tables: {{questions: {{key: subject, place: {{main: [AWS]}}, elsewhere: refuse}}}}
"""


def test_apply_killed_again_and_again_gets_there_and_destroy_too() -> None:
    stage = make_stage(SMALL)
    try:
        # Every moment of the first bring-up is met: each attempt lives a little longer, and finds what the last one left.
        for lives in (0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5, 3.0, 3.5):
            with subprocess.Popen(stage.command("apply"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as attempt:
                time.sleep(lives)
                kill(attempt.pid)
        stage.run("apply")
        stage.whole()
        assert stage.json("apply")["steps"] == []

        # A reader more, interrupted; then finished.
        stage.file.write_text(stage.file.read_text().replace("voters: {here: 2}", "voters: {here: 2}, readers: {here: 1}"))
        assert "create node main/here-3" in stage.run("plan")
        for lives in (0.5, 1.0, 2.0):
            with subprocess.Popen(stage.command("apply"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as attempt:
                time.sleep(lives)
                kill(attempt.pid)
        stage.run("apply")
        assert [node["kind"] for node in stage.shard("main")["replicas"]] == ["voter", "reader"]

        # And gone again: that deletes data, so it asks, and without a terminal it is refused.
        stage.file.write_text(stage.file.read_text().replace(", readers: {here: 1}", ""))
        assert "PGF-F104" in stage.run("apply", expect=4)
        assert len(stage.shard("main")["replicas"]) == 1 or stage.folder.joinpath("nodes/main/here-3/data").exists()
        stage.run("apply", "--yes")
        assert not stage.folder.joinpath("nodes/main/here-3").exists()

        # A setting that asks for a restart, and one that does not.
        stage.file.write_text(stage.file.read_text() + "settings: {work_mem: 5MB, max_locks_per_transaction: 128}\n")
        assert "work_mem" in stage.run("plan")
        stage.run("apply")
        assert "128" in stage.run("sql", "--shard", "main", "--role", "primary", "-c", "show max_locks_per_transaction")
        stage.whole()

        # Destroying, interrupted, then finished; and once more.
        for lives in (0.4, 0.9, 1.5):
            with subprocess.Popen(
                stage.command("destroy", "--yes"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as attempt:
                time.sleep(lives)
                kill(attempt.pid)
        stage.run("destroy", "--yes")
        assert stage.processes() == []
        assert not stage.folder.exists()
        assert "nothing to destroy" in stage.run("destroy", "--yes")
    finally:
        take_down(stage)


def test_two_fleets_side_by_side_and_two_applies_of_one() -> None:
    first, second = make_stage(SMALL), make_stage(SMALL)
    try:
        with (
            subprocess.Popen(first.command("apply"), stdout=subprocess.DEVNULL) as one,
            subprocess.Popen(second.command("apply"), stdout=subprocess.DEVNULL) as other,
        ):
            time.sleep(1.5)
            assert "PGF-F103" in first.run("apply", expect=4)  # the one that is under way
            assert one.wait(timeout=200) == 0
            assert other.wait(timeout=200) == 0
        first.run("destroy", "--yes")
        second.whole()
        assert first.processes() == []
    finally:
        take_down(first)
        take_down(second)


def test_placement_that_would_lose_rows_is_refused(running_fleet: Stage) -> None:
    text = running_fleet.file.read_text()
    running_fleet.run(
        "sql", "--shard", "two", "--as", "owner", "-c", "insert into questions (subject, stem) values ('GRE', 'there')"
    )
    try:
        running_fleet.file.write_text(text.replace("one: [AWS, PMP], two: [GRE]", "one: [AWS, PMP, GRE]"))
        assert "PGF-F105" in running_fleet.run("apply", expect=4)
        running_fleet.file.write_text(text.replace("two: [GRE]", "two: [GRE, LSAT]"))
        steps = running_fleet.json("apply")["steps"]
        assert [step["act"] for step in steps] == ["record placement"]
    finally:
        running_fleet.file.write_text(text)
        running_fleet.run("apply")


def test_every_shard_has_the_map_and_its_tables_refuse_the_rest(running_fleet: Stage) -> None:
    """Made by `migrate` in the file's own transaction, mended by `apply`; an epoch more with every other map."""
    text = running_fleet.file.read_text()

    def ask(shard: str, statement: str, expect: int = 0) -> str:
        return running_fleet.run("sql", "--shard", shard, "--as", "app", "-c", statement, expect=expect)

    def since(shard: str) -> list[int]:
        query = "select epoch, since from pgfleet.placement"
        [row] = running_fleet.json("sql", "--shard", shard, "-c", query)["results"][0]["rows"]
        return [row["epoch"], row["since"]]

    insert = "insert into questions (subject) values ('{}') returning 'there'"
    epoch, _ = since("one")
    assert "PF002" in running_fleet.run("--json", "sql", "--shard", "one", "--as", "app", "-c", insert.format("GRE"), expect=5)
    try:
        running_fleet.file.write_text(
            text.replace("two: [GRE]", "two: [GRE, LSAT]").replace("one: [AWS, PMP]", "one: [AWS, PMP, SAT]")
        )
        assert [step["act"] for step in running_fleet.json("apply")["steps"]] == ["record placement"]
        assert since("one")[0] == since("two")[0] == epoch + 1
        assert running_fleet.json("apply")["steps"] == []
        assert "there" in ask("one", f"begin; {insert.format('SAT')}; rollback")
        assert "there" in ask("two", f"begin; {insert.format('LSAT')}; rollback")

        running_fleet.run("sql", "--shard", "one", "--as", "owner", "-c", "alter table questions disable trigger all")
        assert [step["act"] for step in running_fleet.json("plan")["steps"]] == ["guard tables"]
        assert [step["act"] for step in running_fleet.json("apply")["steps"]] == ["guard tables"]
        assert "PF002" in running_fleet.run(
            "--json", "sql", "--shard", "one", "--as", "app", "-c", insert.format("GRE"), expect=5
        )
    finally:
        running_fleet.file.write_text(text)
        running_fleet.run("apply")
    assert since("one")[0] == epoch + 2


async def test_clients_write_through_changes_of_the_map(running_fleet: Stage) -> None:
    """A key goes to and fro; whoever writes to it and beside it is held up, and told nothing."""
    text = running_fleet.file.read_text()
    done = {"LSAT": 0, "AWS": 0, "GRE": 0}
    stop = False

    async def change(conn: asyncpg.Connection[asyncpg.Record]) -> None:
        await conn.execute("update questions set stem = stem where subject = 'AWS'")

    async def write(fleet: pgfleet.Fleet, key: str) -> None:
        while not stop:
            sql = "update questions set stem = stem where subject = $1"
            await fleet.execute("questions", sql, key, key=key, deadline=20)
            # The ownership of its shard changes, its key stays.
            await fleet.transact("questions", change, key="AWS", deadline=20)
            done[key] += 1
            await asyncio.sleep(0.01)

    try:
        async with pgfleet.connect(running_fleet.folder, region="east") as fleet:
            writers = [asyncio.create_task(write(fleet, key)) for key in done]
            for place in (
                "one: [AWS, PMP, LSAT], two: [GRE]",
                "one: [AWS, PMP], two: [GRE, LSAT]",
                "one: [AWS, PMP], two: [GRE]",
            ):
                running_fleet.file.write_text(text.replace("one: [AWS, PMP], two: [GRE]", place))
                await asyncio.to_thread(running_fleet.run, "apply")
                before = dict(done)
                async with asyncio.timeout(30):
                    while any(done[key] < before[key] + 3 for key in done):
                        await asyncio.sleep(0.1)
                        assert not any(writer.done() for writer in writers), writers
            stop = True
            await asyncio.gather(*writers)
    finally:
        stop = True
        running_fleet.file.write_text(text)
        await asyncio.to_thread(running_fleet.run, "apply")


def test_what_is_not_there_is_said(stage: Stage) -> None:
    assert "PGF-U101" in stage.run("status", expect=3)
    stage.file.write_text(stage.file.read_text() + "postgres: 99\n")
    said = stage.run("plan", expect=3)
    assert "PGF-U202" in said
    assert "installed: 15" in said
    stage.file.write_text(FILE.format(name=stage.name))
    assert "pgfleet init" in stage.run("-f", str(stage.root / "absent.yaml"), "plan", expect=2)
