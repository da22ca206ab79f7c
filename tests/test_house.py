"""The house rules that no type checker knows: floors, purity, small rooms without cupboards, none of this machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parent.parent
SOURCES = sorted((CLONE / "src").rglob("*.py"))
LONGEST = 400  # lines; a file that passes it usually holds two nouns
CUPBOARDS = {"utils", "util", "helpers", "helper", "common", "manager", "handler", "service", "core", "base", "misc"}
BELOW_THE_LINE = ("spec", "facts", "render", "routing", "plan", "report")
SENSES = ("asyncio", "subprocess", "socket", "time", "random", "secrets", "os", "asyncpg", "psycopg", "httpx")

# Hosts of package registries, in halves: this file is searched, too.
REGISTRIES = tuple(
    f"{name}.{domain}"
    for name, domain in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("yarnpkg", "com"),
        ("deb.debian", "org"),
        ("crates", "io"),
        ("proxy.golang", "org"),
        ("maven.apache", "org"),
    ]
)


def relative(path: Path) -> str:
    return str(path.relative_to(CLONE))


def committed_files() -> list[Path]:
    """The files that git tracks and that are still there; without git (an unpacked archive) the sources at least."""
    listed = subprocess.run(["git", "-C", CLONE, "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        return SOURCES
    return [path for name in listed.stdout.split("\0") if name and (path := CLONE / name).is_file()]


def committed_texts() -> list[tuple[str, str]]:
    texts = []
    for path in committed_files():
        try:
            texts.append((relative(path), path.read_text()))
        except UnicodeDecodeError:
            continue  # a picture, an archive
    return texts


def test_import_contracts_hold() -> None:
    linted = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo"],
        cwd=CLONE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("room", BELOW_THE_LINE)
def test_a_room_below_the_line_cannot_sense_the_world(room: str) -> None:
    """The purity contract again, by text: it also sees an import that the graph was told to ignore."""
    sense = re.compile(rf"^\s*(?:import|from)\s+({'|'.join(SENSES)})\b", re.MULTILINE)
    caught = {
        relative(path): found.group(0).strip()
        for path in SOURCES
        if path.is_relative_to(CLONE / "src" / "pgfleet" / room) and (found := sense.search(path.read_text()))
    }
    assert not caught


#: A catalogue: one class a code and a page each. Nothing in it is longer for its length.
CATALOGUES = {"src/pgfleet/errors.py"}


def test_no_source_file_is_too_long() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in SOURCES if relative(path) not in CATALOGUES}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_there_are_no_cupboards() -> None:
    named = {part for path in SOURCES for part in (path.stem, *path.relative_to(CLONE / "src").parts[:-1])}
    assert named & CUPBOARDS == set()


def test_every_folder_of_the_package_is_a_package() -> None:
    """One without an ``__init__.py`` is invisible to the import contracts."""
    folders = {path.parent for path in SOURCES}
    assert [relative(folder) for folder in sorted(folders) if folder.name != "src" and not has_init(folder)] == []


def has_init(folder: Path) -> bool:
    return (folder / "__init__.py").exists()


def test_no_committed_file_names_a_registry() -> None:
    caught = {name: host for name, text in committed_texts() for host in REGISTRIES if host in text}
    assert caught == {}


def test_no_committed_file_holds_what_a_package_client_resolved() -> None:
    word = '"resol' + 'ved"'
    assert [name for name, text in committed_texts() if word in text] == []


def test_no_committed_file_holds_the_path_of_this_clone() -> None:
    here = re.compile(rf"(?<![\w/.]){re.escape(str(CLONE))}(?![\w-])")
    assert [name for name, text in committed_texts() if here.search(text)] == []


def test_every_locked_version_has_hashes_and_no_place() -> None:
    locks = [CLONE / "requirements.lock", CLONE / "requirements-dev.lock", CLONE / "src/pgfleet/engines/engines.lock"]
    for lock in locks:
        entries = re.split(r"\n(?=\S)", lock.read_text().strip())
        for entry in entries:
            if entry.startswith("#"):
                continue
            assert re.match(r"[a-z0-9-]+==[\w.]+", entry), f"{lock.name}: {entry.splitlines()[0]}"
            assert "--hash=sha256:" in entry, f"{lock.name}: {entry.splitlines()[0]} has no hash"
            assert "://" not in entry


def test_the_two_project_locks_agree() -> None:
    """They are installed together; a package in both must have one version."""
    versions: dict[str, set[str]] = {}
    for name in ("requirements.lock", "requirements-dev.lock"):
        for package, version in re.findall(r"^([a-z0-9-]+)==([\w.]+)", (CLONE / name).read_text(), re.MULTILINE):
            versions.setdefault(package, set()).add(version)
    assert {package: found for package, found in versions.items() if len(found) > 1} == {}


def test_the_licence_is_there() -> None:
    text = (CLONE / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_help_loads_nothing_heavy() -> None:
    """``pgfleet --help`` answers at once: no models, no drivers, no HTTP."""
    program = (
        "import sys\n"
        "sys.argv = ['pgfleet', '--help']\n"
        "from pgfleet.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert end.code in (0, None), end.code\n"
        "heavy = {'pydantic', 'httpx', 'asyncpg', 'psycopg', 'cryptography'} & sys.modules.keys()\n"
        "print('LOADED', sorted(heavy))\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[-1] == "LOADED []"
    assert "Usage" in shown.stdout
