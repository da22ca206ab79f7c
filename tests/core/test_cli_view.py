"""What is printed: tables that a pipe can read, one document, steps as they end."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass

import pytest

from pgfleet.cli import view
from pgfleet.events import Event


def test_a_table_in_a_pipe_is_plain_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    view.table("nodes", ["node", "lag", "note"], [["stem/us-east-1", 12, "x" * 300], ["b", 1234, None]])
    assert capsys.readouterr().out.splitlines() == [
        "nodes",
        "node             lag  note",
        f"stem/us-east-1    12  {'x' * 300}",
        "b               1234",
    ]


def test_an_empty_table_has_its_heads(capsys: pytest.CaptureFixture[str]) -> None:
    view.table("", ["shard", "status"], [])
    assert capsys.readouterr().out == "shard  status\n"


def test_colour_takes_no_room(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    view.table("", ["a", "b"], [[view.paint("red", "red"), "x"], ["plain", "y"]])
    assert capsys.readouterr().out.splitlines()[1] == "\033[31mred\033[0m    x"


def test_what_stands_in_brackets_is_text_on_a_terminal_too() -> None:
    program = "from pgfleet.cli import view; view.table('t', ['a', 'b'], [['[bold]x[/bold]', 1]])"
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", program], stdout=theirs, check=True, env=os.environ | {"TERM": "xterm"})
    os.close(theirs)
    assert "[bold]x[/bold]" in os.read(ours, 65536).decode()
    os.close(ours)


@dataclass
class Thing:
    name: str
    parts: frozenset[str]


def test_a_document_keeps_the_order_of_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    view.document({"z": Thing("é", frozenset("ba")), "a": 1})
    out = capsys.readouterr().out
    assert json.loads(out) == {"z": {"name": "é", "parts": ["a", "b"]}, "a": 1}
    assert out.index('"z"') < out.index('"a"')
    assert "é" in out


def test_steps_are_told_as_they_end() -> None:
    out = io.StringIO()
    steps = view.Steps(stream=out)
    steps.began("node stem/us-east-1")
    steps.ended("node stem/us-east-1", "streaming", took=3.2)
    steps.failed("node stem/us-west-1", "no room", took=0.25)
    steps.skipped("etcd/1", "it is there")
    mark = ["ok", "FAILED", "-"]  # a stream of no encoding is not trusted with signs
    assert out.getvalue().splitlines() == [
        f"{mark[0]} node stem/us-east-1 streaming 3.2 s",
        f"{mark[1]} node stem/us-west-1 no room 250 ms",
        f"{mark[2]} etcd/1 it is there",
    ]


def test_the_journals_rows_are_steps() -> None:
    out = io.StringIO()
    steps = view.Steps(stream=out)
    steps.event(Event(1, "", "migrate", "migrate", "stem 0001.sql", "", "began"))
    assert out.getvalue() == ""
    steps.event(Event(2, "", "migrate", "migrate", "stem 0001.sql", "", "ended", 1.5, {"told": "new"}))
    steps.event(Event(3, "", "migrate", "wait", "stem", "it is locked", "seen"))
    assert out.getvalue() == "ok migrate stem 0001.sql new 1.5 s\n- wait stem it is locked\n"


def test_a_terminal_is_told_what_is_under_way() -> None:
    program = (
        "from pgfleet.cli import view\n"
        "with view.Steps() as steps:\n"
        "    steps.began('one'); steps.began('two'); steps.ended('one', 'done', took=1)\n"
    )
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    subprocess.run([sys.executable, "-c", program], stdout=theirs, check=True, env=environment)
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert "… 2 under way: one, two" in said
    assert "✔ one done 1 s\r\n" in said
    assert said.endswith("\r\033[K"), "the line of what is under way is gone in the end"


def test_nobody_to_ask_means_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert view.confirm("Delete everything?") is False
