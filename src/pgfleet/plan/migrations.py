"""Migrations: a folder of numbered SQL files, what is wrong with it, and which files are due on a shard.

A file says in the comments at its head which tables' shards it is for, and whether it can run in a transaction::

    -- tables: questions, users
    -- pgfleet: no-transaction

Without the first it is for every shard; without the second it is one transaction, record included. A line that is almost one of
them is refused: it would mean something else than it says.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from pgfleet.diagnostics import Diagnostic, Position
from pgfleet.errors import MigrationFilesWrong
from pgfleet.plan.statements import Statement, head, place, split

_FILE = re.compile(r"(\d{4})_([a-z0-9]+(?:_[a-z0-9]+)*)\.sql")
_HEADER = re.compile(r"--\s*(tables|pgfleet)\s*:\s*(.*?)\s*")

#: What somebody may have meant by one of these.
_NEAR = re.compile(r"--+\s*(tables?|shards?|pg[-_ ]?fleet)\s*[:=]", re.IGNORECASE)

_OWN_TRANSACTION = ("begin", "start", "commit", "end", "rollback", "abort")


@dataclass(frozen=True)
class Migration:
    """One file.

    :param path: as the person named it, for diagnostics.
    :param tables: whose shards it is for; empty means every shard.
    :param sha256: of the file's bytes, in hexadecimal.
    """

    number: int
    file: str
    path: str
    text: str
    sha256: str
    tables: tuple[str, ...] = ()
    transaction: bool = True

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        return split(self.text)

    def is_for(self, shard: str, shards_of: Mapping[str, Collection[str]]) -> bool:
        """:param shards_of: the shards of each table."""
        return not self.tables or any(shard in shards_of[table] for table in self.tables)


@dataclass(frozen=True, slots=True)
class Applied:
    """A shard's record of a file. ``finished`` is false for a file without transaction that was begun and not ended."""

    number: int
    file: str
    sha256: str
    finished: bool


@dataclass(frozen=True, slots=True)
class Clash:
    """A shard's record that contradicts the folder."""

    record: Applied
    why: str


def read_migrations(folder: str, files: Mapping[str, bytes], tables: Collection[str]) -> tuple[Migration, ...]:
    """The migrations of ``folder``, in order.

    :param files: the bytes of its ``.sql`` files by name.
    :param tables: those that the fleet declares.
    :raises MigrationFilesWrong: with everything that is wrong, at once.
    """
    found: list[Diagnostic] = []
    migrations: dict[int, Migration] = {}
    for name in sorted(files):
        path = f"{folder.rstrip('/')}/{name}"
        top = Position(path, 1, 1)
        match = _FILE.fullmatch(name)
        if match is None:
            found.append(Diagnostic("PGF-M102", top, f"{name!r} is not a migration's name", "such as 0001_questions.sql"))
            continue
        number = int(match[1])
        if number in migrations:
            other = migrations[number].file
            found.append(Diagnostic("PGF-M103", top, f"{other} and {name} have the same number"))
            continue
        try:
            text = files[name].decode("utf-8-sig")
        except UnicodeDecodeError as error:
            found.append(Diagnostic("PGF-M111", top, f"{name} is not UTF-8 text: {error.reason} at byte {error.start}"))
            text = ""
        names, transaction = _header(path, text, tables, found)
        sha256 = hashlib.sha256(files[name]).hexdigest()
        migrations[number] = Migration(number, name, path, text, sha256, names, transaction)
        found += _statements_wrong(migrations[number])
    found += _numbers_wrong(folder, migrations)
    if found:
        raise MigrationFilesWrong(sorted(found, key=lambda d: (d.position, d.code)))
    return tuple(migrations[number] for number in sorted(migrations))


def due(
    migrations: Collection[Migration],
    shard: str,
    shards_of: Mapping[str, Collection[str]],
    applied: Collection[Applied],
) -> tuple[tuple[Migration, ...], tuple[Clash, ...]]:
    """The files that ``shard`` has still to be given, in order, and every record of its that contradicts the folder.

    A file that failed midway without a transaction may be mended and is due again; one that was applied must stay as it
    is. A lower number than the last applied one is due, too: the shard may hold its tables since today only.
    """
    by_number = {m.number: m for m in migrations}
    clashes: list[Clash] = []
    done: set[int] = set()
    for record in applied:
        here = by_number.get(record.number)
        if here is None:
            clashes.append(Clash(record, f"{record.file} was applied to {shard} and is not in the folder"))
        elif record.finished and here.file != record.file:
            clashes.append(Clash(record, f"number {record.number:04} was {record.file} on {shard}, it is {here.file} now"))
        elif record.finished and here.sha256 != record.sha256:
            clashes.append(Clash(record, f"{record.file} was changed after it had been applied to {shard}"))
        elif record.finished:
            done.add(record.number)
    wanted = sorted(by_number)
    return tuple(by_number[n] for n in wanted if n not in done and by_number[n].is_for(shard, shards_of)), tuple(clashes)


def _header(path: str, text: str, declared: Collection[str], found: list[Diagnostic]) -> tuple[tuple[str, ...], bool]:
    names: list[str] = []
    transaction = True
    for offset, comment in head(text):
        match = _HEADER.fullmatch(comment.rstrip())
        if match is None:
            if (near := _NEAR.match(comment)) is not None:
                # Taken for a remark, it would be for every shard, or in a transaction.
                word = "pgfleet" if near[1].lower().startswith("pg") else "tables"
                rest = comment[near.end() :].strip()
                message = f"`{near[0].strip()}` is not understood; the words are `-- tables:` and `-- pgfleet:`"
                found.append(Diagnostic("PGF-M112", Position(path, *place(text, offset)), message, f"-- {word}: {rest}".rstrip()))
            continue
        position = Position(path, *place(text, offset + (match.start(2) if match[2] else len(comment.rstrip()) - 1)))
        if match[1] == "pgfleet":
            transaction = match[2] != "no-transaction"
            if transaction:
                found.append(Diagnostic("PGF-M106", position, f"{match[2]!r} is not known", "-- pgfleet: no-transaction"))
            continue
        said = [name.strip() for name in match[2].split(",") if name.strip()]
        names += said
        known = ", ".join(sorted(declared))
        for name in said or [""]:
            if name not in declared:
                message = f"the file declares no table {name!r}" if name else "no table is named"
                found.append(Diagnostic("PGF-M105", position, message, f"-- tables: {known}"))
    return tuple(dict.fromkeys(names)), transaction


def _numbers_wrong(folder: str, migrations: Mapping[int, Migration]) -> list[Diagnostic]:
    if not migrations:
        return [Diagnostic("PGF-M101", Position(folder, 1, 1), f"{folder} holds no migration", "such as 0001_questions.sql")]
    missing = [n for n in range(1, max(migrations) + 1) if n not in migrations]
    return [Diagnostic("PGF-M104", Position(folder, 1, 1), f"there is no file numbered {n:04}") for n in missing]


def _statements_wrong(migration: Migration) -> list[Diagnostic]:
    found = []
    for statement in migration.statements:
        code, message, hint = _wrong(statement, migration.transaction)
        if code:
            line, column = place(migration.text, statement.offset)
            found.append(Diagnostic(code, Position(migration.path, line, column), message, hint))
    return found


def _wrong(statement: Statement, transaction: bool) -> tuple[str, str, str]:
    first = statement.tokens[0]
    if first in _OWN_TRANSACTION or statement.begins("prepare", "transaction"):
        return "PGF-M107", f"{first.upper()} would end or begin the transaction that pgfleet keeps around the file", ""
    if first == "copy" and "stdin" in statement.tokens:
        return "PGF-M108", "COPY … FROM STDIN has no rows to read here", ""
    if transaction and needs_no_transaction(statement):
        shown = " ".join(statement.tokens[:4]).upper()
        return "PGF-M110", f"{shown} … cannot run inside a transaction", "-- pgfleet: no-transaction"
    if not transaction and first in ("create", "drop", "alter") and not _can_be_repeated(statement):
        words = "IF EXISTS" if first == "drop" else "IF NOT EXISTS"
        return "PGF-M109", f"this {first.upper()} cannot be repeated after an interruption", words
    return "", "", ""


def needs_no_transaction(statement: Statement) -> bool:
    """Whether PostgreSQL refuses the statement inside a transaction block (its docs, per command)."""
    tokens = statement.tokens
    if tokens[0] == "vacuum" or statement.begins("alter", "system"):
        return True
    if tokens[:2] in {(verb, thing) for verb in ("create", "drop") for thing in ("database", "tablespace")}:
        return True
    # The word alone, not in parentheses or strings: … INDEX CONCURRENTLY, DETACH PARTITION p CONCURRENTLY, REINDEX (…).
    return "concurrently" in tokens and tokens[0] in ("create", "drop", "alter", "reindex")


def _can_be_repeated(statement: Statement) -> bool:
    tokens = statement.tokens
    pairs = set(pairwise(tokens))
    if tokens[0] == "drop":
        return ("if", "exists") in pairs
    if tokens[0] == "create":
        return ("or", "replace") in pairs or ("not", "exists") in pairs
    return "add" not in tokens or ("not", "exists") in pairs
