"""The journal: numbered without gaps, chained, safe with several processes, and it takes over what the keeper wrote."""

from __future__ import annotations

import json
import sqlite3
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.control.journal import GENESIS, Journal
from pgfleet.errors import JournalUnreadable
from pgfleet.events import Event

AT = datetime(2026, 1, 31, 1, 14, 9, 250_000, tzinfo=UTC)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db", clock=lambda: AT)


def promote(journal: Journal, **more: object) -> Event:
    return journal.append(actor="keeper", what="promote", subject="users-eu/apac-1", outcome="ended", **more)  # type: ignore[arg-type]


def test_what_is_appended_is_what_is_read(journal: Journal) -> None:
    told = promote(journal, because="silent, fenced", took_seconds=4.1, detail={"told": "timeline 7→8", "timelines": (7, 8)})
    assert journal.read() == [told]
    assert told.number == 1
    assert str(told) == "01:14:09Z #1 promote users-eu/apac-1 ended 4.1 s timeline 7→8 because silent, fenced"
    assert told.detail["timelines"] == [7, 8], "as a reader will get it, JSON has no tuples"


def test_only_its_owner_may_read_it(journal: Journal) -> None:
    promote(journal)
    for file in journal.path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_since_and_limit(journal: Journal) -> None:
    for _ in range(5):
        promote(journal)
    assert [e.number for e in journal.read(since=2, limit=2)] == [3, 4]
    assert journal.read(limit=0) == []


def test_a_chain_that_nobody_touched_holds(journal: Journal) -> None:
    assert journal.head() == (0, GENESIS)
    for took in (None, 3, 0.1):
        promote(journal, took_seconds=took, detail={"größe": "ß", "n": 1.5})
    assert journal.verify() is None
    assert Journal(journal.path).verify() is None


@pytest.mark.parametrize(
    ("sabotage", "broken"),
    [
        ("update event set because = 'nothing' where number = 3", 3),
        ("update event set took_seconds = 0.001 where number = 2", 2),
        ("delete from event where number = 4", 4),
        ("delete from event where number = 1", 1),
        ("update event set detail = 'not json' where number = 5", 5),
        ("update event set number = 9 where number = 6", 6),
    ],
)
def test_a_row_that_was_changed_or_removed_is_named(journal: Journal, sabotage: str, broken: int) -> None:
    for _ in range(6):
        promote(journal, took_seconds=1.0)
    db = sqlite3.connect(journal.path)
    db.execute(sabotage)
    db.commit()
    assert journal.verify() == broken


def test_an_act_is_journaled_as_it_begins_and_as_it_ends(journal: Journal) -> None:
    with journal.act(actor="apply", what="node", subject="stem/us-east-1", because="it is not there") as detail:
        assert [e.outcome for e in journal.read()] == ["began"]
        detail["told"] = "streaming"
    began, ended = journal.read()
    assert (began.outcome, ended.outcome, ended.detail["began"]) == ("began", "ended", 1)
    assert ended.took_seconds is not None


def test_an_act_that_raises_is_journaled_as_failed(journal: Journal) -> None:
    with pytest.raises(RuntimeError), journal.act(actor="apply", what="node", subject="stem/us-east-1"):
        raise RuntimeError("no room")
    assert journal.read()[-1].outcome == "failed"
    assert journal.read()[-1].detail["error"] == "no room"
    assert "failed" in str(journal.read()[-1])
    assert "no room" in str(journal.read()[-1])


def test_an_append_that_fails_leaves_nothing(journal: Journal) -> None:
    with pytest.raises(JournalUnreadable):
        journal.append(actor="x", what="x", subject="x", outcome="perhaps")  # type: ignore[arg-type]
    promote(journal)
    assert [e.number for e in journal.read()] == [1]


APPENDS = """
import sys
from pathlib import Path
from pgfleet.control.journal import Journal
for _ in range(25):
    with Journal(Path(sys.argv[1])) as journal:
        journal.append(actor=sys.argv[2], what="count", subject="", outcome="seen")
"""


def test_processes_that_append_at_once_share_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    writers = [subprocess.Popen([sys.executable, "-c", APPENDS, str(path), f"writer-{n}"]) for n in range(4)]
    assert [writer.wait(timeout=60) for writer in writers] == [0] * 4
    journal = Journal(path)
    assert [e.number for e in journal.read()] == list(range(1, 101))
    assert journal.verify() is None


def wrote(folder: Path, *lines: object, end: str = "\n") -> None:
    with (folder / "keeper-events.jsonl").open("a") as stream:
        stream.write("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + end)


def test_what_the_keeper_wrote_is_taken_over_once(journal: Journal, tmp_path: Path) -> None:
    wrote(
        tmp_path,
        {
            "at": "2026-01-31T01:14:05Z",
            "unit": "node/stem/us-east-1",
            "what": "buried",
            "because": "it died",
            "took": 0.2,
        },
    )
    [event] = journal.read()
    assert (event.actor, event.what, event.subject, event.outcome) == (
        "keeper",
        "buried",
        "node/stem/us-east-1",
        "ended",
    )
    assert (event.at, event.took_seconds) == ("2026-01-31T01:14:05.000Z", 0.2)
    assert len(Journal(journal.path).read()) == 1


def test_it_comes_before_a_row_that_is_appended_after_it(journal: Journal, tmp_path: Path) -> None:
    wrote(tmp_path, {"at": 1769822045.5, "unit": "etcd/1", "what": "restarted", "took": None})
    promote(journal)
    assert [e.what for e in journal.read()] == ["restarted", "promote"]
    assert journal.read()[0].at == "2026-01-31T01:14:05.500Z"


def test_half_a_line_waits_for_its_other_half(journal: Journal, tmp_path: Path) -> None:
    wrote(tmp_path, '{"what": "star', end="")
    assert journal.read() == []
    wrote(tmp_path, 'ted", "unit": "etcd/1"}')
    assert [e.what for e in journal.read()] == ["started"]


def test_a_new_file_is_read_from_its_beginning(journal: Journal, tmp_path: Path) -> None:
    wrote(tmp_path, {"what": "one"}, {"what": "two"})
    assert len(journal.read()) == 2
    (tmp_path / "keeper-events.jsonl").rename(tmp_path / "older")
    wrote(tmp_path, {"what": "three"})
    assert [e.what for e in journal.read()] == ["one", "two", "three"]


@given(st.lists(st.one_of(st.text(max_size=20).filter(lambda t: "\n" not in t and "\r" not in t), st.none() | st.integers())))
def test_no_line_is_dropped_silently(tmp_path_factory: pytest.TempPathFactory, lines: list[object]) -> None:
    folder = tmp_path_factory.mktemp("journal")
    with (folder / "keeper-events.jsonl").open("w", encoding="utf-8", errors="replace") as stream:
        stream.writelines((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    with Journal(folder / "journal.db") as journal:
        assert [e.what for e in journal.read()] == ["unreadable-event"] * len(lines)
        assert journal.verify() is None


def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(JournalUnreadable, match="cannot be opened"):
        Journal(tmp_path / "nowhere" / "journal.db")
