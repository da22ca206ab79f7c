"""``pgfleet check``, ``init`` and ``schema`` as they are typed."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from pgfleet.cli.main import main
from pgfleet.spec.fleet import Fleet
from pgfleet.spec.keys import PLACES
from pgfleet.spec.schema import json_schema

CLONE = Path(__file__).resolve().parents[2]
BANK = CLONE / "examples" / "question-bank.yaml"
REFERENCE = CLONE / "docs" / "reference"

WRONG = """\
fleet: f
regions: {us: {}}
shards:
  main: {voters: {us: 2}, snyc: 1}
"""


def test_a_good_file_is_ok_and_its_arithmetic_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(BANK)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("question-bank: 8 shards, 34 nodes, 5 regions; etcd in us-east, us-east-2, us-west\n")
    assert "users-eu       eu-west       2        0  2 nodes         1 of 1 vote        the primary" in out
    assert out.endswith("\nok\n")


def test_a_mistake_is_shown_in_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(WRONG)
    assert main(["-f", str(file), "check"]) == 2
    assert capsys.readouterr().out == (
        "error[PGF-S010]: `snyc` is not a key of a shard\n"
        f"  --> {file}:4:27\n"
        "   4 |   main: {voters: {us: 2}, snyc: 1}\n"
        "     |                           ^^^^\n"
        "  HINT: sync\n"
        "\n"
        "1 mistake\n"
    )


def test_json_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(WRONG)
    assert main(["check", str(file), "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["fleet"], said["shards"]) == (False, None, [])
    [diagnostic] = said["diagnostics"]
    assert diagnostic["code"] == "PGF-S010"
    assert diagnostic["position"] == {"file": str(file), "line": 4, "column": 27}
    assert main(["check", str(BANK), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["fleet"], len(said["shards"])) == (True, "question-bank", 8)
    assert said["shards"][0]["regions_that_may_be_lost"] == ["us-east", "us-east-2", "us-west"]


def test_warnings_alone_are_ok(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(WRONG.replace("us: 2}, snyc: 1", "us: 3}") + "postgres: 17\n")
    assert main(["check", str(file)]) == 0
    out = capsys.readouterr().out
    assert "warning[PGF-S036]" in out
    assert out.endswith("ok, 1 warning\n")


def test_a_password_is_not_printed_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text("fleet: f\nregions: {us: {}}\nshards: {a: {primary: 'postgresql://app:hunter2@db/app', colour: red}}\n")
    assert main(["check", str(file)]) == 2
    assert "hunter2" not in capsys.readouterr().out


def test_a_long_line_is_cut_around_the_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.yaml"
    listed = ", ".join(f"subject-{number}" for number in range(100))
    tables = f"tables: {{t: {{key: k, place: {{main: [{listed}, subject-7]}}}}}}\n"
    file.write_text(WRONG.replace("us: 2}, snyc: 1", "us: 3}") + tables)
    assert main(["check", str(file)]) == 2
    lines = capsys.readouterr().out.split("\n")
    source, mark = lines[2], lines[3]
    assert len(source) < 130
    assert source[mark.index("^") :].startswith("subject-7]")


@pytest.mark.parametrize("example", ["smallest", "existing", "question-bank", "question-bank-demo"])
def test_init_writes_a_file_that_is_good(example: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new.yaml"
    assert main(["init", str(file), "--example", example]) == 0
    assert file.read_text() == (CLONE / "examples" / f"{example}.yaml").read_text()
    assert "#" in file.read_text()
    assert main(["check", str(file)]) == 0
    capsys.readouterr()


def test_init_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text("mine")
    assert main(["-f", str(file), "init"]) == 4
    assert file.read_text() == "mine"
    assert "refused[PGF-F101]" in capsys.readouterr().err
    assert main(["init", str(tmp_path / "other.yaml"), "--example", "huge"]) == 2
    assert "--example smallest" in capsys.readouterr().err
    assert main(["init", str(tmp_path / "no" / "such" / "folder.yaml")]) == 2


def test_the_schema_in_the_documentation_is_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == (REFERENCE / "fleet.schema.json").read_text(), (
        "pgfleet schema > docs/reference/fleet.schema.json"
    )


def test_the_schema_says_what_every_key_is_for() -> None:
    said = json_schema()
    models = {model.__name__ for _, model in PLACES.values()} - {Fleet.__name__}
    for name, definition in [("Fleet", said), *((name, said["$defs"][name]) for name in sorted(models))]:
        body = next((form for form in definition.get("anyOf", ()) if "properties" in form), definition)
        assert body["additionalProperties"] is False, name
        assert not [key for key, value in body["properties"].items() if not value.get("description")], name


def test_the_reference_names_every_key() -> None:
    page = (REFERENCE / "fleet-file.md").read_text()
    for _, model in PLACES.values():
        for name, field in model.model_fields.items():
            assert f"`{field.alias or name}`" in page, f"{model.__name__}.{name}"


def test_colours_are_for_terminals() -> None:
    def run(**environment: str) -> str:
        main_end, end = pty.openpty()
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
        ran = subprocess.Popen(
            [sys.executable, "-m", "pgfleet", "-f", "-", "check", os.devnull],
            stdout=end, stderr=end, env=kept | {"TERM": "xterm"} | environment, cwd=CLONE,
        )  # fmt: skip
        os.close(end)
        said = b""
        try:
            while part := os.read(main_end, 4096):
                said += part
        except OSError:
            pass  # a terminal's end of file, once the other side is closed
        os.close(main_end)
        assert ran.wait(timeout=30) == 2
        return said.decode()

    assert "\x1b[" in run()
    assert "\x1b[" not in run(NO_COLOR="1")
