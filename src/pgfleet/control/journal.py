"""The journal: numbered, hash-chained rows in SQLite, appended before anything is told.

Row n's hash covers row n - 1's hash, so a row that was changed, removed or put between others is found by
:meth:`Journal.verify`. Rows cut off at the *end* are not (whoever can write the file can cut it): compare
:meth:`Journal.head` with a copy kept elsewhere.

The keeper must not wait for a database while it buries a primary: it appends JSON lines to its own file, and whoever
opens the journal next takes them over, once, inside the same transaction that remembers how far.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from pgfleet.errors import JournalUnreadable
from pgfleet.events import OUTCOMES, Event, Outcome, canonical_json

KEEPER_EVENTS = "keeper-events.jsonl"

#: What the first row's hash covers in place of a row before it.
GENESIS = "0" * 64

#: Another process holds the write lock for one append (a millisecond, plus an fsync); 10 s means that something is
#: wrong.
BUSY_SECONDS = 10.0

_COLUMNS = "number, at, actor, what, subject, because, outcome, took_seconds, detail"


def now() -> datetime:
    return datetime.now(UTC)


class Journal:
    """One fleet's journal. Several processes may append and read at the same time; an object belongs to one thread.

    :param path: ``journal.db`` in the fleet's state folder, made (0600) if absent.
    :param tell: told every row that *this* object appends, once it is on the disk.
    :raises JournalUnreadable: another user's, or not a journal.
    """

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = now, tell: Callable[[Event], None] | None = None) -> None:
        self.path = path
        self._tell = tell
        self._clock = clock
        self._keeper = path.parent / KEEPER_EVENTS
        try:
            if not path.exists():
                _make(path)
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            self._db.execute("pragma synchronous = full")
            if self._db.execute("select count(*) from sqlite_master where name = 'taken_over'").fetchone()[0] == 0:
                raise JournalUnreadable(f"{path} is not a journal", seen=["a database without its tables"])
        except (OSError, sqlite3.Error) as error:
            raise JournalUnreadable(f"the journal {path} cannot be opened", seen=[str(error)]) from None

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(
        self,
        *,
        actor: str,
        what: str,
        subject: str,
        outcome: Outcome,
        because: str = "",
        took_seconds: float | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> Event:
        """Append one row; it is on the disk when this returns, and only then may it be told.

        :raises JournalUnreadable: the disk is full, or the file was locked for longer than :data:`BUSY_SECONDS`.
        """
        with self._writing():
            self._take_over()
            event = self._insert(_iso(self._clock()), actor, what, subject, because, outcome, took_seconds, detail or {})
        if self._tell is not None:
            self._tell(event)
        return event

    @contextmanager
    def act(self, *, actor: str, what: str, subject: str, because: str = "") -> Iterator[dict[str, Any]]:
        """Journal an act: ``began`` now, ``ended`` when the block is left, ``failed`` when it raises.

        Yields the last row's detail, to be filled in; its text ``told`` appears in the row's line.
        """
        began = time.monotonic()
        first = self.append(actor=actor, what=what, subject=subject, because=because, outcome="began")
        detail: dict[str, Any] = {"began": first.number}
        outcome: Outcome = "failed"
        try:
            yield detail
            outcome = "ended"
        except BaseException as error:
            detail.setdefault("error", str(error) or type(error).__name__)
            raise
        finally:
            took = round(time.monotonic() - began, 3)
            self.append(
                actor=actor, what=what, subject=subject, because=because, outcome=outcome, took_seconds=took,
                detail=detail,
            )  # fmt: skip

    def read(self, since: int = 0, limit: int | None = None) -> list[Event]:
        """Rows with a number above ``since``, in order, what the keeper has written until now included."""
        if self._behind():
            with self._writing():
                self._take_over()
        rows = self._db.execute(
            f"select {_COLUMNS} from event where number > ? order by number limit ?",
            (since, -1 if limit is None else limit),
        )
        return [_event(row) for row in rows]

    def head(self) -> tuple[int, str]:
        """The last row's number and hash; ``(0, GENESIS)`` when there is none."""
        row = self._db.execute("select number, hash from event order by number desc limit 1").fetchone()
        return (row[0], row[1]) if row else (0, GENESIS)

    def verify(self) -> int | None:
        """The number of the first row that is not what was appended (or is missing); None when the chain holds."""
        before = GENESIS
        expected = 1
        for *columns, said in self._db.execute(f"select {_COLUMNS}, hash from event order by number"):
            try:
                event = _event(columns)
            except (ValueError, TypeError):
                return expected
            before = chained(before, event)
            if event.number != expected or said != before:
                return expected
            expected += 1
        return None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            # IMMEDIATE: the next number is read under the write lock, or two processes would take the same one.
            self._db.execute("begin immediate")
        except sqlite3.Error as error:
            raise JournalUnreadable(f"the journal {self.path} cannot be written", seen=[str(error)]) from None
        try:
            yield
            self._db.execute("commit")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            if isinstance(error, sqlite3.Error):
                raise JournalUnreadable(f"the journal {self.path} cannot be written", seen=[str(error)]) from None
            raise

    def _insert(
        self, at: str, actor: str, what: str, subject: str, because: str, outcome: Outcome,
        took_seconds: float | None, detail: Mapping[str, Any],
    ) -> Event:  # fmt: skip
        number, before = self.head()
        took = None if took_seconds is None else float(took_seconds)
        # Through JSON and back: what is hashed is what a reader will get (a tuple becomes a list, a key becomes text).
        kept = json.loads(json.dumps(detail, default=str))
        event = Event(number + 1, at, actor, what, subject, because, outcome, took, kept)
        self._db.execute(
            f"insert into event ({_COLUMNS}, hash) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                number + 1,
                at,
                actor,
                what,
                subject,
                because,
                outcome,
                took,
                canonical_json(kept),
                chained(before, event),
            ),
        )
        return event

    def _behind(self) -> bool:
        return self._unread() is not None

    def _unread(self) -> tuple[int, int, int] | None:
        """Inode of the keeper's file, from which byte it was not taken over, and its size; None when nothing is new."""
        try:
            seen = self._keeper.stat()
        except FileNotFoundError:
            return None
        row = self._db.execute("select inode, bytes from taken_over where file = ?", (KEEPER_EVENTS,)).fetchone()
        start = row[1] if row and row[0] == seen.st_ino and row[1] <= seen.st_size else 0
        return (seen.st_ino, start, seen.st_size) if start < seen.st_size else None

    def _take_over(self) -> None:
        """Append what the keeper wrote since last time; a last line that is still being written waits for the next
        time."""
        unread = self._unread()
        if unread is None:
            return
        inode, start, size = unread
        with self._keeper.open("rb") as stream:
            stream.seek(start)
            whole = stream.read(size - start)
        whole = whole[: whole.rfind(b"\n") + 1]
        for text in whole.splitlines():
            self._insert(*_keeper_event(text, _iso(self._clock())))
        self._db.execute(
            "insert into taken_over (file, inode, bytes) values (?, ?, ?)"
            " on conflict (file) do update set inode = excluded.inode, bytes = excluded.bytes",
            (KEEPER_EVENTS, inode, start + len(whole)),
        )


def _make(path: Path) -> None:
    """Make an empty journal beside its place and put it there whole, unless another process was quicker.

    Made in place, two processes would change its journal mode at once, and SQLite refuses that without waiting
    (SQLITE_BUSY; the busy timeout does not apply where waiting could be a deadlock).
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # 0600; SQLite gives -wal and -shm the same
    os.close(handle)
    made = Path(name)
    try:
        with closing(sqlite3.connect(made, isolation_level=None)) as db:
            db.execute("pragma journal_mode = wal")
            db.executescript(files("pgfleet.control").joinpath("journal.sql").read_text())
        with suppress(FileExistsError):
            os.link(made, path)
    finally:
        made.unlink()


def chained(before: str, event: Event) -> str:
    """The hash of ``event`` after a row whose hash is ``before``: SHA-256, in hexadecimal."""
    return hashlib.sha256(f"{before}{event.canonical()}".encode("ascii")).hexdigest()


def _event(row: Any) -> Event:
    number, at, actor, what, subject, because, outcome, took, detail = row
    return Event(number, at, actor, what, subject, because, outcome, took, json.loads(detail))


def _keeper_event(text: bytes, fallback_at: str) -> tuple[str, str, str, str, str, Outcome, float | None, Mapping[str, Any]]:
    """A line of the keeper's file as a row. A line that cannot be read becomes a row that says so: nothing is
    dropped silently."""
    try:
        said = json.loads(text)
        took = said.get("took")
        outcome = said.get("outcome") or ("ended" if took is not None else "seen")
        rest = {key: value for key, value in said.items() if key not in ("at", "unit", "what", "because", "took", "outcome")}
        return (
            _stamp(said.get("at"), fallback_at), "keeper", str(said["what"]), str(said.get("unit") or "keeper"),
            str(said.get("because") or ""), outcome if outcome in OUTCOMES else "seen",
            None if took is None else float(took), rest,
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        shown = text[:200].decode("utf-8", "replace")
        return fallback_at, "keeper", "unreadable-event", KEEPER_EVENTS, "", "seen", None, {"text": shown}


def _stamp(at: object, fallback: str) -> str:
    if isinstance(at, (int, float)):
        return _iso(datetime.fromtimestamp(at, UTC))
    if isinstance(at, str):
        read = datetime.fromisoformat(at)
        return _iso(read if read.tzinfo else read.replace(tzinfo=UTC))
    return fallback


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
