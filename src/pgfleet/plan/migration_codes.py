"""What may be wrong with a folder of migrations: the code of each, why it is wrong, and what to do. The pages under
docs/errors are made from this table; a code that was given once is never given to something else.
"""

from __future__ import annotations

from pgfleet.spec.codes import Code

CODES: dict[str, Code] = {
    code.code: code
    for code in (
        Code(
            "PGF-M101",
            "The folder holds no migration",
            "No file in it ends in `.sql`.",
            "Name files by number and by what they do: `0001_questions.sql`.",
        ),
        Code(
            "PGF-M102",
            "Not a migration's name",
            "A name is four digits, an underscore, and words of lower-case letters and digits, joined by "
            "underscores. A `.sql` file with another name would never be applied, so it is refused instead of "
            "ignored.",
            "Rename it, or move it out of the folder.",
        ),
        Code(
            "PGF-M103",
            "Two files have the same number",
            "In which order they apply would be a guess; two branches that were merged often do this.",
            "Give the newer one the next free number. If it was applied somewhere already, renumber the other one.",
        ),
        Code(
            "PGF-M104",
            "A number is missing",
            "Numbers go from 0001 without gaps. Either a file was not checked out, or a number was left out; "
            "applying the later files first could not be undone.",
            "Bring the missing file back, or renumber the later ones if they were applied nowhere.",
        ),
        Code(
            "PGF-M105",
            "A table that is not declared",
            "The line `-- tables:` names a table that fleet.yaml does not declare, or none: which shards the file "
            "is for cannot be known.",
            "Correct the name, declare the table, or remove the line: the file is then for every shard.",
        ),
        Code(
            "PGF-M106",
            "An unknown word after `-- pgfleet:`",
            "The only word it knows is `no-transaction`.",
            "Write `-- pgfleet: no-transaction`, or remove the line.",
        ),
        Code(
            "PGF-M107",
            "A file that begins or ends a transaction itself",
            "pgfleet puts the file and the record of it into one transaction, so that a kill leaves both or "
            "neither; BEGIN, COMMIT or ROLLBACK in the file would tear them apart.",
            "Remove the statement. For what cannot run in a transaction write `-- pgfleet: no-transaction` at the head.",
        ),
        Code(
            "PGF-M108",
            "`COPY … FROM STDIN` in a migration",
            "It reads rows from the client, and a migration has none to send.",
            "Use INSERT, or load the rows with `pgfleet sql` and `\\copy`.",
        ),
        Code(
            "PGF-M109",
            "A statement that cannot be repeated",
            "A file without transaction that is stopped is run again from its start, and would fail at this statement.",
            "Write IF NOT EXISTS, OR REPLACE or IF EXISTS.",
        ),
        Code(
            "PGF-M110",
            "A statement that needs a file without transaction",
            "PostgreSQL refuses CREATE INDEX CONCURRENTLY, VACUUM and a few others inside a transaction, and this file is one.",
            "Put it into a file of its own with `-- pgfleet: no-transaction` at its head.",
        ),
        Code(
            "PGF-M111",
            "The file is not UTF-8 text",
            "Its bytes are no text in UTF-8.",
            "Save it as UTF-8.",
        ),
        Code(
            "PGF-M112",
            "A line at the head that is almost understood",
            "The words are `-- tables:` and `-- pgfleet:`, written so. `-- table:` or `-- Tables:` would be a remark like any "
            "other, and the file for every shard.",
            "Write it as the hint says; a remark, write with other words before its colon.",
        ),
    )
}
