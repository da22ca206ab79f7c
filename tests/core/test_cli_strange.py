"""What a newcomer gives the command line: no words, wrong words, and files that are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pgfleet.cli.main import main


def pgfleet(*words: str | bytes, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pgfleet", *words]
    return subprocess.run(
        argv, env=os.environ | environment, cwd=cwd, text=True, capture_output=True, check=False, timeout=60
    )  # fmt: skip


def test_no_words_are_answered_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert "Commands:" in out.err
    assert main(["--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["hint"] == "pgfleet --help"


def test_a_word_that_is_nearly_right_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["statsu"]) == 2
    assert "Did you mean 'status'?" in capsys.readouterr().err


def test_help_says_each_command_in_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2]
    assert "..." not in listed, "a first sentence is too long for a terminal"


STRANGE: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "PGF-S005", "1:1"),
    "comment": (b"# nothing\n", "PGF-S005", "1:1"),
    "binary": (b"\x7fELF\x02\x01\x00\xff\xfe", "PGF-S006", "1:8"),
    "nul": (b"\x00\x00", "PGF-S001", "1:1"),
    "latin-1": ("fleet: f\n# é\n".encode("latin-1"), "PGF-S006", "2:3"),
    "utf-16": ("fleet: f\n".encode("utf-16"), "PGF-S006", "1:1"),
    "escape": (b"fleet: \x1b[31mf\n", "PGF-S001", "1:8"),
    "duplicate": (b"fleet: f\nfleet: g\nregions: {}\nshards: {}\n", "PGF-S002", "2:1"),
    "anchor": (b"fleet: &a f\n", "PGF-S003", "1:8"),
    "alias": (b"fleet: *a\n", "PGF-S003", "1:8"),
    "tag": (b"fleet: !!str f\n", "PGF-S003", "1:8"),
    "tab": (b"fleet: f\nregions:\n\there: {}\n", "PGF-S001", "3:1"),
    "bracket": (b"fleet: f\nregions: {here: {}\nshards: {}\n", "PGF-S001", "3:1"),
    "two documents": (b"fleet: f\n---\nfleet: g\n", "PGF-S001", "2:1"),
    "a list": (b"- fleet\n", "PGF-S005", "1:1"),
    "a word": (b"fleet\n", "PGF-S005", "1:1"),
    "huge": (b"# " + b"x" * 1_000_000, "PGF-S004", "1:1"),
    "deep": (b"fleet: " + b"[" * 100_000, "PGF-S004", "1:32"),
    "unknown key": (b"fleet: f\nregoins: {}\nshards: {}\n", "PGF-S010", "2:1"),
    "wrong type": (b"fleet: f\nregions: 3\nshards: {}\n", "PGF-S012", "2:10"),
    "long number": (b"fleet: f\nregions: {here: {}}\nshards: {a: {sync: 1" + b"0" * 5000 + b"}}\n", "PGF-S012", "3:20"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_file_is_told_with_code_place_and_hint(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, code, place = STRANGE[name]
    file = tmp_path / "fleet.yaml"
    file.write_bytes(data)
    assert main(["check", str(file), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)["diagnostics"]
    [first] = [one for one in found if one["code"] == code]
    assert f"{first['position']['line']}:{first['position']['column']}" == place
    assert all(one["hint"] for one in found)

    assert main(["check", str(file)]) == 2
    said = capsys.readouterr().out
    assert f"error[{code}]" in said
    assert f"--> {file}:{place}" in said
    assert all(line.isprintable() for line in said.split("\n")), "nothing in a file may reach the terminal's own ears"
    assert max(map(len, said.split("\n"))) < 300

    # Every command that reads the file says the same, on stderr.
    assert main(["-f", str(file), "log"]) == 2
    out = capsys.readouterr()
    assert (out.out, code in out.err, f"--> {file}:{place}" in out.err) == ("", True, True)


def test_a_file_that_never_ends_is_too_large() -> None:
    done = pgfleet("check", "/dev/zero")
    assert (done.returncode, "PGF-S004" in done.stdout) == (2, True)


def test_many_mistakes_in_one_line_take_no_time_each(tmp_path: Path) -> None:
    wrong = ", ".join(f"{number}.5" for number in range(40_000))
    (tmp_path / "fleet.yaml").write_text(
        f"fleet: f\nregions: {{here: {{}}}}\nshards: {{a: {{}}}}\ntables: {{t: {{key: k, place: {{a: [{wrong}]}}}}}}\n"
        + "fleet: f\n" * 10_000
    )
    done = pgfleet("check", cwd=tmp_path)  # within its 60 s; a quadratic look took minutes
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].startswith("50000 mistakes")


def test_what_marks_text_as_utf_8_is_no_part_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_bytes(b"\xef\xbb\xbffleet: f\r\nregions: {here: {}}\r\nshards: {main: {voters: {here: 3}}}\r\n")
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out.startswith("f: 1 shard, 3 nodes, 1 region; etcd in here (3 members)\n")


def test_a_folder_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 2
    assert f"HINT: pgfleet -f {tmp_path}/fleet.yaml check" in capsys.readouterr().err


def test_a_name_that_is_no_text_is_told_all_the_same() -> None:
    for encoding in ("utf-8", "ascii"):
        done = pgfleet("--json", "check", b"\xff.yaml", PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (2, "")
        assert json.loads(done.stdout)["error"]["code"] == "PGF-C002"


def test_an_output_that_is_not_utf_8_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text("fleet: é\nregions: {here: {}}\nshards: {main: {}}\n")
    done = pgfleet("check", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (2, "")
    assert "`\\xe9` cannot be a name" in done.stdout


def test_init_says_what_to_type_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert capsys.readouterr().out.endswith("next: pgfleet check\n")
    assert main(["init", "other.yaml"]) == 0
    assert capsys.readouterr().out.endswith("next: pgfleet -f other.yaml check\n")


@pytest.mark.parametrize("command", ["apply", "check", "init"])
def test_usage_has_one_pair_of_brackets(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "[[" not in capsys.readouterr().out
