"""What somebody meets who tries things: a fleet that is not there, a state folder that cannot be, watching, colours."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.scenarios.fleet_stage import Stage

pytestmark = [pytest.mark.engines, pytest.mark.timeout(240)]


def typed(stage: Stage, *words: str, state: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line without ``--state``, unless it is given."""
    argv = [word for word in stage.command(*words) if word not in ("--state", str(stage.root))]
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "PGFLEET_STATE")}
    return subprocess.run(
        [*argv, *(["--state", state] if state is not None else [])], env=kept | environment, capture_output=True, text=True,
        timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    "words", [["status"], ["status", "--watch"], ["log"], ["sql", "--shard", "one"], ["switchover", "one"], ["migrate", "DIR"]]
)
def test_of_a_fleet_that_was_never_applied_nothing_is_made(stage: Stage, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "0001_nothing.sql").write_text("select 1;\n")
    said = stage.run(*[str(tmp_path) if word == "DIR" else word for word in words], expect=3)
    assert "unreachable[PGF-U101]" in said
    assert "HINT: pgfleet apply" in said
    assert not stage.folder.exists()


def test_a_plan_makes_no_folder(stage: Stage) -> None:
    said = stage.run("plan")
    assert f"+ prepare {stage.name}" in said
    assert "create node one/east-1" in said
    assert not stage.folder.exists()


def test_a_plan_that_is_none_is_refused(stage: Stage) -> None:
    for text in ("", "[]", "{}", "nonsense"):
        (stage.root / "plan.json").write_text(text)
        assert "PGF-C002" in stage.run("apply", str(stage.root / "plan.json"), expect=2)
    assert "PGF-C002" in stage.run("plan", "--out", str(stage.root / "no" / "such" / "folder"), expect=2)
    stage.run("plan", "--out", str(stage.root / "plan.json"))
    assert json.loads((stage.root / "plan.json").read_text())["fleet"] == stage.name


@pytest.mark.parametrize("command", ["plan", "apply"])
@pytest.mark.parametrize("kind", ["a file", "below a file", "nowhere"])
def test_a_state_folder_that_cannot_be_is_told(stage: Stage, command: str, kind: str) -> None:
    place = {"a file": str(stage.file), "below a file": f"{stage.file}/state", "nowhere": "/proc/nowhere"}[kind]
    done = typed(stage, command, PGFLEET_STATE=place)
    assert done.returncode == 3, done.stderr
    assert "unreachable[PGF-U140]" in done.stderr
    assert place in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="anybody else's engines run as themselves")
def test_a_folder_that_the_engines_cannot_enter_is_told_before_anything_is_made(stage: Stage) -> None:
    closed = stage.root / "closed"
    closed.mkdir(mode=0o700)
    done = typed(stage, "apply", state=str(closed / "state"))
    assert done.returncode == 3, done.stderr
    assert f"unreachable[PGF-U140]: user postgres, as whom the engines run, cannot enter {closed}" in done.stderr
    assert f"chmod o+x {closed}" in done.stderr
    assert typed(stage, "destroy", "--yes", state=str(closed / "state")).returncode == 0


def test_somebody_elses_folder_is_neither_used_nor_deleted(stage: Stage) -> None:
    stage.folder.mkdir()
    mine = stage.folder / "thesis.txt"
    mine.write_text("mine")
    for words in (["apply"], ["destroy", "--yes"], ["destroy"]):
        said = stage.run(*words, expect=4)
        assert "refused[PGF-F140]" in said
        assert "thesis.txt" in said
    assert [entry.name for entry in stage.folder.iterdir()] == ["thesis.txt"]
    mine.unlink()
    assert json.loads(stage.run("--json", "destroy", "--yes")) == {"fleet": stage.name, "destroyed": True}


def test_the_state_is_where_the_option_says_then_the_environment(running_fleet: Stage, tmp_path: Path) -> None:
    root = str(running_fleet.root)
    assert typed(running_fleet, "status", PGFLEET_STATE=root).returncode == 0
    assert typed(running_fleet, "status", state=root, PGFLEET_STATE=str(tmp_path)).returncode == 0
    assert "PGF-U101" in typed(running_fleet, "status", PGFLEET_STATE=str(tmp_path)).stderr
    assert "PGF-U101" in typed(running_fleet, "status", state=str(tmp_path), PGFLEET_STATE=root).stderr


def test_colours_go_to_terminals_and_to_who_asks_for_them(running_fleet: Stage) -> None:
    root = str(running_fleet.root)
    assert "\033" not in typed(running_fleet, "status", PGFLEET_STATE=root).stdout
    painted = typed(running_fleet, "status", PGFLEET_STATE=root, FORCE_COLOR="1").stdout
    assert "\033[32mstreaming\033[0m" in painted
    plain = typed(running_fleet, "status", PGFLEET_STATE=root, FORCE_COLOR="1", NO_COLOR="1").stdout
    assert "\033" not in plain
    assert plain.splitlines()[1].split() == [
        "shard", "node", "region", "role", "state", "sync", "timeline", "lag", "behind", "address", "pid",
    ]  # fmt: skip


def test_watching_ends_when_it_is_interrupted(running_fleet: Stage) -> None:
    watching = subprocess.Popen(
        running_fleet.command("--json", "status", "--watch"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert watching.stdout is not None
    looks = [json.loads(watching.stdout.readline()) for _ in range(2)]
    assert looks[0]["at"] < looks[1]["at"]
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=20)
    assert (watching.returncode, said) == (130, "")


def test_a_terminal_is_cleared_for_each_look(running_fleet: Stage) -> None:
    ours, theirs = pty.openpty()
    watching = subprocess.Popen(
        running_fleet.command("status", "--watch"), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "200", "NO_COLOR": "1"},
    )  # fmt: skip
    os.close(theirs)
    said, until = b"", time.monotonic() + 30
    while said.count(b"\033[2J") < 2 and time.monotonic() < until:
        said += os.read(ours, 65536)
    watching.send_signal(signal.SIGINT)
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:
        pass  # a terminal's end of file
    os.close(ours)
    assert watching.wait(timeout=20) == 130
    text = said.decode()
    assert text.count("\033[2J") >= 2
    assert "east-1" in text
    assert "Traceback" not in text
    assert "stopped" not in text, "nothing was under way"


def test_steps_are_told_as_they_end(running_fleet: Stage) -> None:
    text = running_fleet.file.read_text()
    try:
        running_fleet.file.write_text(text + "settings: {work_mem: 6MB}\n")
        said = running_fleet.run("apply")
        assert re.search(r"^\S+ change settings one \S.* \d+(\.\d+)? m?s$", said, re.MULTILINE), said
        assert re.search(r": 2 steps, [\d.]+ s; the fleet is as the file says$", said, re.MULTILINE)
        assert "\033" not in said
    finally:
        running_fleet.file.write_text(text)
        running_fleet.run("apply")
