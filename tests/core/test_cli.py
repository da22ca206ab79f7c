"""The command line: options on either side of the command, exit statuses, what an exception becomes, help in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.cli import main as command_line
from pgfleet.cli.main import COMMANDS, INTERRUPTED, main
from pgfleet.cli.options import Options, hoist
from pgfleet.control.journal import Journal
from pgfleet.errors import Bug, PgfleetError, Refused, SpecError, StepFailed, Unproven, Unreachable, WrongUsage

SQL = ("-c", "--command", "--shard")


def hoisted(*words: str) -> tuple[Options, list[str]]:
    return hoist(words, lambda command: SQL if command == "sql" else ())


@pytest.mark.parametrize(
    ("words", "options", "rest"),
    [
        ([], Options(), []),
        (["plan"], Options(), ["plan"]),
        (["-f", "a.yaml", "plan"], Options(file="a.yaml"), ["plan"]),
        (["plan", "-f", "a.yaml"], Options(file="a.yaml"), ["plan"]),
        (["plan", "-fa.yaml"], Options(file="a.yaml"), ["plan"]),
        (["plan", "--file=a=b.yaml"], Options(file="a=b.yaml"), ["plan"]),
        (["--state", "/x", "plan", "--json", "--out", "p"], Options(state="/x", json=True), ["plan", "--out", "p"]),
        (["--state=/x", "plan"], Options(state="/x"), ["plan"]),
        (["sql", "-c", "--json"], Options(), ["sql", "-c", "--json"]),
        (["sql", "-c", "-f", "--json"], Options(json=True), ["sql", "-c", "-f"]),
        (["sql", "--shard", "-fx", "-f", "y"], Options(file="y"), ["sql", "--shard", "-fx"]),
        (["sql", "--", "-f", "x", "--json"], Options(), ["sql", "--", "-f", "x", "--json"]),
        (["--json", "sql", "--command=select '--json'"], Options(json=True), ["sql", "--command=select '--json'"]),
        (["sql", "-c"], Options(), ["sql", "-c"]),
        (["log", "--follow"], Options(), ["log", "--follow"]),
    ],
)
def test_options_are_taken_from_either_side(words: list[str], options: Options, rest: list[str]) -> None:
    assert hoisted(*words) == (options, rest)


@pytest.mark.parametrize("words", [["-f"], ["plan", "--file"], ["--state="], ["plan", "--state", ""]])
def test_an_option_without_its_value_is_refused(words: list[str]) -> None:
    with pytest.raises(WrongUsage, match="needs a value"):
        hoisted(*words)


@given(st.permutations([("-f", "a.yaml"), ("--json",), ("--state=/x",), ("sql",), ("--flag",)]))
def test_the_order_of_options_means_nothing(parts: list[tuple[str, ...]]) -> None:
    options, rest = hoisted(*(word for part in parts for word in part))
    assert options == Options(file="a.yaml", json=True, state="/x")
    assert sorted(rest) == ["--flag", "sql"]


def pgfleet(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pgfleet", *words]
    return subprocess.run(
        argv, env=os.environ | environment, text=True, capture_output=True, check=False, timeout=60
    )  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"pgfleet {name}" in said
    assert "-f FILE" in said


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n  {name} " not in said] == []


def test_commands_import_what_is_heavy_only_when_they_run() -> None:
    program = (
        "import sys\n"
        "from pgfleet.cli.main import COMMANDS, main\n"
        "for name in COMMANDS: main([name, '--help'])\n"
        # pydantic is not looked for: typer itself reads options with it
        "heavy = {'httpx', 'asyncpg', 'psycopg', 'cryptography', 'rich'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("words", [["--version"], ["version"]])
def test_the_version_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("pgfleet 0.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["log", "--nonsense"], "No such option: --nonsense"),
        (["log", "--since", "x"], "--since"),
        (["migrate"], "DIR"),
        (["log", "-f"], "-f needs a value"),
        (["log"], "there is no fleet.yaml here"),
    ],
)
def test_wrong_usage_exits_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out = capsys.readouterr()
    assert said in out.err
    assert out.out == ""
    assert main([*words[:1], "--json", *words[1:]]) == 2
    assert said in json.loads(capsys.readouterr().out)["error"]["message"]


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(*_: object) -> int:
        raise error

    monkeypatch.setattr(command_line, "_run", run)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SpecError([]), 2),
        (Unreachable("x"), 3),
        (Refused("x"), 4),
        (StepFailed("x"), 5),
        (Unproven("x"), 6),
        (Bug("x"), 70),
    ],
)
def test_the_exit_status_says_what_the_reader_can_do(
    error: PgfleetError, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, error)
    assert main(["plan"]) == status
    assert error.code in capsys.readouterr().err
    assert main(["plan", "--json"]) == status
    out = capsys.readouterr()
    assert json.loads(out.out)["error"]["code"] == error.code
    assert json.loads(out.out)["error"]["exit_status"] == status
    assert out.err == ""


def test_what_nobody_foresaw_is_told_with_how_to_report_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, ZeroDivisionError("by zero"))
    assert main(["plan", "--json"]) == 70
    out = capsys.readouterr()
    assert "Traceback" in out.err
    assert json.loads(out.out)["error"]["message"] == "ZeroDivisionError: by zero"
    assert "report" in json.loads(out.out)["error"]["hint"]


def test_an_interruption_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    assert main(["apply"]) == 130
    assert INTERRUPTED in capsys.readouterr().err


FLEET = "fleet: small\nregions: {here: {provider: local}}\nshards: {only: {}}\n"


@pytest.fixture
def fleet(tmp_path: Path) -> tuple[str, ...]:
    """Options of a fleet with a journal of three rows."""
    (tmp_path / "fleet.yaml").write_text(FLEET)
    (tmp_path / "small").mkdir()
    with Journal(tmp_path / "small" / "journal.db") as journal:
        for what in ("one", "two", "three"):
            journal.append(actor="apply", what=what, subject="only", outcome="seen", because=f"of {what}")
    return ("-f", str(tmp_path / "fleet.yaml"), "--state", str(tmp_path))


def test_log_tells_the_journal(fleet: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", *fleet]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[1:] == ["#1", "one", "only", "seen", "because", "of", "one"]
    assert len(lines) == 3
    assert main(["log", *fleet, "--since", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["fleet"], [event["what"] for event in document["events"]]) == ("small", ["three"])
    assert main(["log", "-n", "1", *fleet]) == 0
    assert "#3" in capsys.readouterr().out


def test_log_verifies(fleet: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    import sqlite3

    assert main(["log", "--verify", *fleet]) == 0
    assert capsys.readouterr().out.startswith("3 events, each follows from the one before; head ")
    db = sqlite3.connect(Path(fleet[-1]) / "small" / "journal.db")
    db.execute("update event set because = 'of nothing' where number = 2")
    db.commit()
    db.close()
    assert main(["log", "--verify", *fleet]) == 6
    assert "broken at #2 of 3" in capsys.readouterr().err


def test_log_of_a_fleet_that_is_not_here(fleet: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", *fleet[:-1], "/nowhere"]) == 3
    assert "never applied here" in capsys.readouterr().err


def test_log_follows_until_it_is_interrupted(fleet: tuple[str, ...]) -> None:
    argv = [sys.executable, "-m", "pgfleet", "log", "--follow", "--json", "--since", "2", *fleet]
    following = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert following.stdout is not None
    assert json.loads(following.stdout.readline())["number"] == 3
    with Journal(Path(fleet[-1]) / "small" / "journal.db") as journal:
        journal.append(actor="apply", what="four", subject="only", outcome="seen")
    began = time.monotonic()
    assert json.loads(following.stdout.readline())["what"] == "four"
    assert time.monotonic() - began < 5
    following.send_signal(signal.SIGINT)
    _, said = following.communicate(timeout=10)
    assert (following.returncode, said) == (130, "")


def test_a_reader_that_goes_away_is_no_error(fleet: tuple[str, ...]) -> None:
    with Journal(Path(fleet[-1]) / "small" / "journal.db") as journal:
        for _ in range(2000):
            journal.append(actor="apply", what="much", subject="only", outcome="seen", because="x" * 100)
    argv = [sys.executable, "-m", "pgfleet", "log", *fleet]
    writing = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert writing.stdout is not None
    writing.stdout.readline()
    writing.stdout.close()
    assert writing.wait(timeout=30) == 141
    assert writing.stderr is not None
    assert writing.stderr.read() == ""
    writing.stderr.close()


def test_colour_is_for_terminals_unless_forced() -> None:
    assert "\033" not in pgfleet("nonsense").stderr
    assert "\033[" in pgfleet("nonsense", FORCE_COLOR="1").stderr
    assert "\033" not in pgfleet("nonsense", FORCE_COLOR="1", NO_COLOR="1").stderr
