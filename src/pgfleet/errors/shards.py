"""Of shards that are asked or migrated by an operator."""

from __future__ import annotations

from collections.abc import Sequence

from pgfleet.errors.tree import PgfleetError, Refused, SpecError, StepFailed, Unreachable


class _PerShard(PgfleetError):
    """Adds what is known of each shard.

    :param shards: a document for each, for ``--json``.
    """

    def __init__(
        self, message: str, *, seen: Sequence[str] = (), hint: str = "", shards: Sequence[dict[str, object]] = ()
    ) -> None:
        super().__init__(message, seen=seen, hint=hint)
        self.shards = tuple(shards)

    def to_json(self) -> dict[str, object]:
        return super().to_json() | {"shards": list(self.shards)}


class NoSuchNode(Unreachable):
    """No node of a shard is what was asked for (its primary, or a replica) and answers; what each node said is told.

    During a failover there is no primary for up to half a minute: wait, and run the command again. If it stays so,
    ``pgfleet status`` says what is wrong with the shard.
    """

    code = "PGF-U120"


class ShardsUnreachable(Unreachable):
    """Not every shard that the command is for could be reached, so nothing was begun on any of them.

    What each shard's nodes said is told. ``pgfleet status`` shows the fleet.
    """

    code = "PGF-U121"


class CommitUnanswered(Unreachable):
    """COMMIT was sent and its answer never came, or the server warned that the replicas have not confirmed it.

    Whether the transaction happened is not known. A migration is recorded inside its own transaction, so the next
    ``pgfleet migrate`` sees whether it did, and goes on from there.
    """

    code = "PGF-U122"


class MigrationFilesWrong(SpecError):
    """The folder given to ``pgfleet migrate`` is not a sequence of migrations; its diagnostics say where and how.

    Nothing was applied. Mend the files: they are numbered from 0001 without gaps (``0001_questions.sql``).
    """

    code = "PGF-M100"


class MigrateInterrupted(_PerShard, Unreachable):
    """The connection to a shard ended while migrations were applied: a failover, a crash, or the network.

    The file under way is applied with its record or not at all (a file without transaction: begun, and safe to
    repeat). Run the same command again; it goes on where each shard stands.
    """

    code = "PGF-U123"


class MigrateFailed(_PerShard, StepFailed):
    """PostgreSQL refused a statement of a migration. The place in the file, its SQLSTATE and the server's hint are
    told.

    The file was rolled back on that shard (one without transaction stays as far as it came, and is repeated from its
    start); files before it stay applied. Other shards went on: what each has is told. Mend the file, and run the same
    command again: where it was applied already it must not be changed, so mend it in a new file if any shard has it.
    """

    code = "PGF-E120"


class MigrationChanged(Refused):
    """A shard's record of what was applied contradicts the folder: a file was changed, renamed or removed afterwards.

    Nothing was applied. Restore the file as it was (version control has it; the record has its SHA-256) and put the
    change into a new, higher-numbered file.
    """

    code = "PGF-F120"


class MigrateUnderWay(Refused):
    """Another ``pgfleet migrate`` holds a shard's lock; two at once would apply the same files twice.

    Wait for it to end. If its process was killed, the server notices within seconds and lets the lock go.
    """

    code = "PGF-F121"


class StatementFailed(_PerShard, StepFailed):
    """PostgreSQL refused the statement given to ``pgfleet sql -c``; the server's message and SQLSTATE are told.

    On a shard that refused it nothing was done. With ``--shard all``, what each of the others answered is in ``--json``.
    """

    code = "PGF-E121"


class PrivilegeMissing(Refused):
    """The user of a DSN may not make or change the schema `pgfleet` in its database, and nothing else will do.

    `grant create on database …` or `create schema pgfleet authorization …`, as the hint has it, by whoever owns the
    database. No superuser is needed, nor any right on the application's tables for this.
    """

    code = "PGF-F232"
