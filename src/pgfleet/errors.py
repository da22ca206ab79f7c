"""Errors: the tree is cut by what the reader can do. Every class with a code has a page, made from its docstring.

``SpecError`` mend the file · ``Unreachable`` wait or mend the network · ``Refused`` a person decides ·
``StepFailed`` an engine said no · ``Unproven`` done, but the promise did not hold · ``Bug`` tell us.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Literal

from pgfleet.diagnostics import Diagnostic


class PgfleetError(Exception):
    """The root of the tree; never raised itself.

    :param message: one sentence: what, and what was seen.
    :param seen: facts, a line each.
    :param hint: what to type now; can be pasted.
    """

    code: ClassVar[str] = "PGF-0000"
    kind: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 70

    def __init__(self, message: str, *, seen: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.seen = tuple(seen)
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"{self.kind}[{self.code}]: {self.message}"]
        lines += [f"  seen: {fact}" for fact in self.seen]
        if self.hint:
            lines.append(f"  HINT: {self.hint}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """A stable shape for ``--json``: code, kind, message, seen, hint."""
        return {
            "code": self.code,
            "kind": self.kind,
            "message": self.message,
            "seen": list(self.seen),
            "hint": self.hint,
        }


class SpecError(PgfleetError):
    """The file is wrong; its diagnostics say where and how. Mend the file."""

    code = "PGF-S000"
    kind = "error"
    exit_status = 2

    def __init__(self, diagnostics: Sequence[Diagnostic], message: str = "", *, hint: str = "") -> None:
        count = sum(1 for d in diagnostics if d.severity == "error")
        super().__init__(message or f"{count} mistake{'s' if count != 1 else ''} in the file", hint=hint)
        self.diagnostics = tuple(diagnostics)

    def __str__(self) -> str:
        if not self.diagnostics:
            return PgfleetError.__str__(self)
        return "\n\n".join(str(d) for d in self.diagnostics)

    def to_json(self) -> dict[str, object]:
        return PgfleetError.to_json(self) | {"diagnostics": [d.to_json() for d in self.diagnostics]}


class Unreachable(PgfleetError):
    """Something that should answer does not. Wait, or mend the network; nothing was changed."""

    code = "PGF-U000"
    kind = "unreachable"
    exit_status = 3


class Refused(PgfleetError):
    """A guard said no. A person decides; the message says which rule, and how it can be overridden if it can."""

    code = "PGF-F000"
    kind = "refused"
    exit_status = 4


class StepFailed(PgfleetError):
    """An engine said no. ``command``, ``exit_status`` and the last lines it wrote are kept."""

    code = "PGF-E000"
    kind = "failed"
    exit_status = 5


class Unproven(PgfleetError):
    """It was done, but the measurement did not keep the promise."""

    code = "PGF-P000"
    kind = "unproven"
    exit_status = 6


class Bug(PgfleetError):
    """Something that cannot happen did. Please report it with the output."""

    code = "PGF-B000"
    kind = "bug"
    exit_status = 70


class NotApplied(Unreachable):
    """There is no fleet of this name on this host: no address book was found in its state folder.

    It was never applied here, it was destroyed, or its state is elsewhere (``--state`` and ``PGFLEET_STATE`` say where;
    root and other users have different folders by default).
    """

    code = "PGF-U101"


class SecretUnreadable(Unreachable):
    """A password of the fleet is absent or belongs to another user.

    Secrets are files of mode 0600 below the fleet's state folder: run the command as the user who applied the fleet.
    """

    code = "PGF-U102"


class EtcdUnreachable(Unreachable):
    """No etcd member answered in time, or a watch of one ended.

    Fewer than a majority of the members live, or the network between is cut. PostgreSQL goes on serving (Patroni's
    failsafe mode), but nothing can be elected until etcd is back: ``pgfleet status`` shows its members. Where the
    answer of a write was lost, the write may have happened: look again.
    """

    code = "PGF-U110"


class EtcdRefused(StepFailed):
    """etcd answered, and said no: permission denied, a wrong password, a request it does not understand.

    The message is etcd's own. After ``pgfleet apply`` users, roles and passwords agree again.
    """

    code = "PGF-E110"


class WrongUsage(PgfleetError):
    """The command line is wrong: an unknown command or option, or a value that is missing or not understood.

    Nothing was done. ``pgfleet --help`` lists the commands, ``pgfleet COMMAND --help`` the options of one; ``-f``,
    ``--json`` and ``--state`` are accepted before and after the command's name.
    """

    code = "PGF-C001"
    kind = "usage"
    exit_status = 2


class FileUnreadable(WrongUsage):
    """The file that declares the fleet, or another that the command line names, is absent or cannot be read or written.

    pgfleet reads ``fleet.yaml`` of the working folder unless ``-f FILE`` says otherwise. ``pgfleet init`` writes one
    to start from.
    """

    code = "PGF-C002"
    kind = "error"


class EnginesMissing(Unreachable):
    """The engines' own programs were not found on this host: Patroni's Python, or one of Debian's packages.

    ``script/bootstrap`` installs what is missing and says where. Patroni is looked for in ``$PGFLEET_ENGINES``, then in
    root's place, then in the user's, in a folder named by the hash of ``engines.lock``: a new version of pgfleet may
    want a new one.
    """

    code = "PGF-U201"


class JournalUnreadable(Unreachable):
    """The fleet's journal cannot be opened or written: another user's, a full disk, or locked for too long.

    Nothing is done that could not be journaled first. The journal is ``journal.db`` in the fleet's state folder, of
    mode 0600: run the command as the user who applied the fleet, and look at the folder's disk.
    """

    code = "PGF-U103"


class JournalBroken(Unproven):
    """A row of the journal is not what was appended, or is missing: its hash does not follow from the row before it.

    Somebody, or a failing disk, changed ``journal.db``. The rows before the one that is named still hold. Keep the
    file, and compare it with the copies that were taken of it.
    """

    code = "PGF-P101"


class PostgresMissing(Unreachable):
    """The major version of PostgreSQL that the file asks for has no server binaries on this host.

    Install it, or say in the file (``postgres:``) one of those that are here. 15 is what is tested; newer majors
    work where their binaries are, and `plan` says that they are untested.
    """

    code = "PGF-U202"


class NoFreePort(Unreachable):
    """Every port that pgfleet may give out (15000 to 32000, below the ephemeral range) is in use or promised to a
    fleet.

    `pgfleet destroy` gives a fleet's ports back; `ss -ltn` shows who listens.
    """

    code = "PGF-U203"


class PatroniUnreachable(Unreachable):
    """Patroni's REST of a node did not answer in time: the node is down, hangs, or its certificate is not the fleet's.

    `pgfleet status` shows which nodes live; the node's own log is `nodes/SHARD/MEMBER/log/patroni.log` in the state
    folder.
    """

    code = "PGF-U204"


class PatroniRefused(StepFailed):
    """Patroni answered, and said no: the candidate is not eligible, another change is under way, or a value is not
    allowed.

    What it said stands under `seen`. `pgfleet status` shows whether the shard has a healthy candidate.
    """

    code = "PGF-E201"


class MigrationFilesWrong(SpecError):
    """The folder given to ``pgfleet migrate`` is not a sequence of migrations; its diagnostics say where and how.

    Nothing was applied. Mend the files: they are numbered from 0001 without gaps (``0001_questions.sql``).
    """

    code = "PGF-M100"


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


class NotSettled(StepFailed):
    """What was started did not become what it shall be within its time. It may still: nothing was taken back.

    What was seen last stands under `seen`; `pgfleet status` looks again, the logs are `logs/` and
    `nodes/SHARD/MEMBER/log/patroni.log` in the state folder, and `pgfleet apply` goes on where this stopped.
    """

    code = "PGF-E202"


class NamespacesUnavailable(Refused):
    """This user may not make the kernel namespaces that the nodes of a fleet live in.

    Each node has its own pid, mount and ipc namespaces, so that the kernel itself ends PostgreSQL when its Patroni
    ends: that is what makes a failover without split brain possible, and nothing replaces it. Root may make them; an
    ordinary user may where ``sysctl user.max_user_namespaces`` is above 0 and neither
    ``kernel.unprivileged_userns_clone=0`` (Debian's kernels) nor ``kernel.apparmor_restrict_unprivileged_userns=1``
    (Ubuntu's) forbids it. Inside a container the container's own policy may forbid it as well.
    """

    code = "PGF-F130"


class KeeperUnreachable(Unreachable):
    """The fleet's keeper does not answer on its socket.

    It was stopped, or it never started; what it said last is in ``logs/keeper.log``. The engines live on without it,
    but nobody starts them again. ``pgfleet apply`` starts it, and it adopts what runs.
    """

    code = "PGF-U220"


class KeeperFailed(StepFailed):
    """The keeper answered that it could not do what it was asked to. The message is its own."""

    code = "PGF-E220"


class PlacementError(Refused):
    """The placement has no answer for this table and key, and none is made up.

    The table is not declared in the file; or the key is not listed and `elsewhere` is `refuse`; or the key is spread
    over several shards and the second column's value was not given; or the value is no key (keys are text, whole
    numbers and UUIDs). Give another key, or mend the file and apply it.
    """

    code = "PGF-F220"


class WouldOverwrite(Refused):
    """A file is there already, and it may be the only copy of what somebody decided.

    Name another file, or remove this one first.
    """

    code = "PGF-F101"


class NoCandidate(Refused):
    """No replica can take over without losing something: none takes part in synchronous replication and streams
    right now, or the one that was named does not.

    Wait until `pgfleet status` shows a streaming voter, or name one of the candidates under `seen`.
    """

    code = "PGF-F102"


class FleetBusy(Refused):
    """Two processes may not change one fleet at the same time: another `apply`, `switchover` or `destroy` is under way.

    Wait for it, or end it by the pid that is told. Its lock goes with it, whatever it died of, and the next `apply`
    goes on from what is there.
    """

    code = "PGF-F103"


class NotConfirmed(Refused):
    """The plan deletes data, and nobody said yes: there is no terminal to ask on, or the answer was no.

    Read the plan (`pgfleet plan`), then `pgfleet apply --yes`. Nothing was changed.
    """

    code = "PGF-F104"


class PlacementLosesRows(Refused):
    """The file places keys on another shard than before, and rows of them exist where they were: they would not be
    found any more. Nothing was changed.

    Put the placement back, or move the rows first.
    """

    code = "PGF-F105"


class StillDifferent(StepFailed):
    """Every step ended well, and yet looking again shows that something is not as the file wants it.

    Run `pgfleet plan` for what differs now; the journal (`pgfleet log`) has what was done.
    """

    code = "PGF-E203"


class ShardUnasked(Unreachable):
    """A changed placement must be compared with the rows that exist, and told to every shard, and a shard does not answer.

    Nothing was changed there. Bring the shard back (`pgfleet status`), then apply again.
    """

    code = "PGF-U205"


class NoSuchName(Refused):
    """The command names a shard or node that the file does not declare. Those that it declares stand under `seen`."""

    code = "PGF-F106"


class CannotConnect(Unreachable):
    """A node could not be connected to: refused, silent for a second, not ready yet, or it has no connection left.

    Nothing was sent that could have done anything, so the client goes to another node, or tries again, by itself; this
    is seen only where one node in particular was asked for.
    """

    code = "PGF-U130"

    def __init__(self, message: str, *, state: str | None = None) -> None:
        super().__init__(message)
        self.state = state  # SQLSTATE, where it was PostgreSQL that said no


class DeadlineExceeded(Unreachable):
    """A call of the client was not answered within its deadline; the message says for what it waited.

    A write that was sent is told as ``OutcomeUnknown`` instead: so here nothing was changed. During a failover of a
    dead primary writes wait for about half a second, of a silent one for about 21 s: a longer ``deadline=`` waits
    through it. Where it waited for a free connection, the pool is too small for the load (``pool_size=``) or statements
    are slow.
    """

    code = "PGF-U131"


Outcome = Literal["committed", "aborted", "lost"]


class OutcomeUnknown(Unreachable):
    """A write was sent, and whether it was committed is not known: the answer never came, or the server said that the
    replicas had not confirmed it.

    It may have happened. It is never repeated silently. A write that was opened with ``resolvable=True`` can be asked:
    ``await error.resolve()`` says ``committed``, ``aborted`` (it will never happen now) or ``lost`` (it was committed by a
    primary that no longer counts). For others look for the row (an id made by the application shows it), or write so that a
    repetition does no harm (``insert ... on conflict do nothing``).
    """

    code = "PGF-U132"

    def __init__(
        self,
        message: str,
        *,
        seen: Sequence[str] = (),
        hint: str = "",
        resolver: Callable[[float], Awaitable[Outcome]] | None = None,
    ) -> None:
        super().__init__(message, seen=seen, hint=hint)
        self._resolver = resolver

    @property
    def resolvable(self) -> bool:
        return self._resolver is not None

    async def resolve(self, deadline: float = 30.0) -> Outcome:
        """What became of the write, decided by its row; waits for a primary, and for the transaction if it is still under way.

        :param deadline: seconds.
        :raises NotResolvable: it left no row.
        :raises DeadlineExceeded: nobody could be asked in time; ask again.
        """
        if self._resolver is None:
            raise NotResolvable("this write left no row to decide by", hint="resolvable=True")
        return await self._resolver(deadline)


class ShardsSilent(Unreachable):
    """``everywhere`` asked every shard, and some did not answer; they are named, with what each waited for.

    ``partial=True`` gives the rows of those that did; ``missing`` of that result names the others.
    """

    code = "PGF-U133"


class WriteInRead(Refused):
    """A statement that writes was sent where only reads go: ``fetch``, ``everywhere`` or a ``read`` block.

    Nothing was written. Use ``execute``, or a ``write`` block where rows come back (``insert ... returning``).
    """

    code = "PGF-F201"


class BlockRolledBack(Refused):
    """A ``write`` block ended without an error, but a statement in it had failed and the error was caught: PostgreSQL
    answered COMMIT by a rollback, so nothing of the block was written.

    Let errors leave the block, or put what may fail into ``async with conn.transaction():`` inside it (a savepoint).
    """

    code = "PGF-F202"


class FleetClosed(Refused):
    """The fleet was used before ``async with`` began or after it ended."""

    code = "PGF-F203"


class StatementFailed(_PerShard, StepFailed):
    """PostgreSQL refused the statement given to ``pgfleet sql -c``; the server's message and SQLSTATE are told.

    On a shard that refused it nothing was done. With ``--shard all``, what each of the others answered is in ``--json``.
    """

    code = "PGF-E121"


class PlanOutdated(Refused):
    """`apply PLAN` performs that plan or nothing, and looking now gives another one: the file or the fleet has changed since.

    Make the plan again, read it, and apply that.
    """

    code = "PGF-F107"


class AlreadyThere(Refused):
    """The demonstration starts from nothing, and in the folder that was named there is a fleet of its name already.

    Destroy that one, or name another folder.
    """

    code = "PGF-F108"


class TokenUnreadable(Refused):
    """What was given as a token (`fleet.after`) is none: cut or changed on its way, or of another version.

    Read without it where stale data does no harm, or do the write again; a token is carried whole, as text.
    """

    code = "PGF-F204"


class WriteLost(Unproven):
    """A token says that a write was acknowledged, and the shard's history does not contain it: it was lost in a failover, or
    another database stands in its place.

    With quorum commit this takes the loss of more nodes than the file allows for, or a promotion that accepted a loss. The
    write has to be done again; what the old primary held is in its data folder until it is rewound.
    """

    code = "PGF-P102"


class PlacementMoved(Unreachable):
    """The key was moved to another shard (or the map changed) while a `write` block was under way; nothing of it was written.

    The client has the new map already: run the block again. `execute` and `transact` do so by themselves, once.
    """

    code = "PGF-U134"


class NotOwned(Refused):
    """The shard refused a statement because it does not own the key of a row that the statement writes, and the map has not
    changed: the `key` of the call and the key in the SQL are not the same.

    Give the call the key that the statement's rows have; rows of several keys take a call each.
    """

    code = "PGF-F205"


class SessionState(Refused):
    """A statement that leaves state in its session (SET, LISTEN, PREPARE, a temporary table, an advisory lock …) was sent through
    a pooler, where the next statement may run in another session.

    Use SET LOCAL or the `_xact_` advisory locks inside a block, or connect with `through="direct"` and `session=True`.
    """

    code = "PGF-F206"


class NotResolvable(Refused):
    """`resolve()` was called for a write that was not opened with `resolvable=True`: it left no row to decide by.

    Look for what it wrote, and open the next one with `resolvable=True`.
    """

    code = "PGF-F207"


class StateUnusable(Unreachable):
    """The folder that holds the state of fleets, or something in it, cannot be made, read, written or removed.

    The message says what the file system said: no right to it, a full or read-only disk, a path that is too long or is no
    folder. The folder is what ``--state`` says, else ``PGFLEET_STATE``, else /var/lib/pgfleet for root and
    ``~/.local/state/pgfleet`` for anybody else.
    """

    code = "PGF-U140"


class NoFleetsFolder(Refused):
    """Where the fleet's state would be there is a folder with something else in it, and nothing in it is a fleet's.

    pgfleet writes into its folder, and ``pgfleet destroy`` deletes it, so it takes none that it has not made. Name
    another folder (``--state``), give the fleet another name, or move away what is there.
    """

    code = "PGF-F140"


class DsnUnreadable(Unreachable):
    """What the file names as a server's DSN (`env:NAME`, `file:PATH`) leads to nothing, or to something that is no DSN.

    The variable has to be set where the command runs, the file has to be readable by whoever runs it; a relative path begins
    at the fleet's file. `pgfleet apply` keeps what it read in the fleet's state folder (0600): `status`, `sql`, `migrate` and
    applications need neither afterwards.
    """

    code = "PGF-U230"


class DsnRejected(StepFailed):
    """A server that exists already answered, and does not let us in: a wrong password or user, no such database, TLS that is
    demanded or missing, a certificate that nobody we trust has signed.

    What it said stands under `seen`. Mend the DSN; nothing was changed.
    """

    code = "PGF-E230"


class NotOneShard(Refused):
    """The DSNs of a shard do not lead to a primary and its replicas: two lead to the same server, a server holds another
    database (another system identifier), or two users or databases are named where one is meant.

    Reads would be answered from elsewhere. Each server of a shard has one DSN, all with the same user and database.
    """

    code = "PGF-F230"


class TwoPrimaries(Refused):
    """Two servers of a shard say that they take writes: one was promoted and the other is still up, or came back.

    What is written to the old one is lost to the new one. Stop the old one (the one on the lower timeline), make it a replica
    again, then repeat the command. Clients that are running already write only to the one on the highest timeline that they
    have seen.
    """

    code = "PGF-F231"


class PrivilegeMissing(Refused):
    """The user of a DSN may not make or change the schema `pgfleet` in its database, and nothing else will do.

    `grant create on database …` or `create schema pgfleet authorization …`, as the hint has it, by whoever owns the
    database. No superuser is needed, nor any right on the application's tables for this.
    """

    code = "PGF-F232"


class ProviderCannot(Refused):
    """The command needs something that the fleet's provider has no means for.

    Servers that exist already (provider `existing`) are promoted, restarted and configured by whoever runs them; pgfleet
    asks them who they are and follows.
    """

    code = "PGF-F233"


class TakenAlready(Refused):
    """The database is another shard already, of this fleet or of another: its schema `pgfleet` says which.

    Two shards in one database would each answer for the other's keys. Give each its own database, or, where the other fleet
    is gone, `drop schema pgfleet cascade` there.
    """

    code = "PGF-F234"


class PooledEndpoint(Refused):
    """A DSN leads to a pooler in transaction mode (PgBouncer, Neon's `-pooler` host), which has no sessions of its own to give.

    pgfleet needs start-up parameters (a read that cannot write, the epoch of a write), prepared statements and advisory locks,
    and has a bounded pool of its own. Name the server itself: for Neon the host without `-pooler`.
    """

    code = "PGF-F235"


class SchemaInUse(Refused):
    """Something of the application's depends on the schema `pgfleet`, so it is not dropped: what, stands under `seen`.

    Nothing was deleted. Change or drop that first; triggers that pgfleet itself made do not count.
    """

    code = "PGF-F236"


class CrossShardWrite(Refused):
    """One transaction was to write to two shards: its COMMIT would not be atomic, and half of it could be lost.

    Commit the one before the other begins, and let the second be safe to repeat.
    """

    code = "PGF-F208"


class PlacementSuperseded(Refused):
    """A shard already has a map of keys with a higher epoch, or another map of the same one: somebody else changed it after
    this change was planned. Nothing was changed there.

    `pgfleet plan` looks again, and gives the file's map an epoch above every one that is known.
    """

    code = "PGF-F270"


class NotDrained(StepFailed):
    """What a shard owns can change only while nobody is writing to it, and transactions that write did not end in time.

    The shard owns what it did; new writes were let through again between the attempts. The sessions named hold the lock: let them
    commit, or end them (`select pg_terminate_backend(PID)`), and run the same command again. `idle in transaction` is the usual
    reason.
    """

    code = "PGF-E270"


class NotGuarded(StepFailed):
    """A table's guards could not be attached, so its shard does not refuse rows that are not its own.

    The table has not the key column that the file names, its owner is not pgfleet's, or somebody held it locked for too long. The
    server's message says which. Mend that, and run `pgfleet apply` again.
    """

    code = "PGF-E271"


class CannotMerge(Refused):
    """The answers of several shards cannot be put into one order, so no order was made up.

    What is ordered by is not a column of the answer; or it stands there twice; or its values have no common order (json,
    composite types); or a shard sorts text by another collation than by code point, and was asked for its first rows
    only. Order by columns that the query selects, of simple types, and write ``name collate "C"`` where a database has
    another collation. Where the arguments themselves are wrong, nothing was sent.
    """

    code = "PGF-F260"


class CannotCombine(Refused):
    """The partial results of several shards cannot be combined as was asked; the column is named.

    A column is neither combined nor grouped by, or not in the answer; or its values cannot be added or compared; or an
    average is weighted by a column that did not count what was averaged: ``count(x)`` counts the values of ``avg(x)``,
    ``count(*)`` counts NULLs too. Where the arguments themselves are wrong, nothing was sent.
    """

    code = "PGF-F261"


class AlreadyClaimed(Refused):
    """A value that this write claims in a lookup belongs to a row already: it is unique across the fleet.

    Nothing was written. ``fleet.locate`` says where that row is. A value that its row gives up is named in ``releases`` of
    the write that does so (a changed e-mail address, a deleted user).
    """

    code = "PGF-F262"


class NotTheirs(Refused):
    """A write gives up a value in a lookup that belongs to a row with another key. Nothing was written.

    Give up the value that the row itself has: read it, and let the statement look again (``update ... where id = $1 and
    email = $2``), so that a write which another one overtook changes nothing.
    """

    code = "PGF-F263"


class ClaimVoided(Refused):
    """A write that claims values began its transaction so late after it reserved them that another write, or a repair,
    declared it void. Nothing was written; do it again.

    Reservations are left alone for two seconds. ``transact`` does it again by itself; a block cannot be run again by us.
    """

    code = "PGF-F264"


class DirectOnly(Refused):
    """An adapter for another driver was given a fleet that goes through its poolers: an adapter lends connections to nodes, which
    `pgfleet check` did not count on.

    Open the fleet for it with `through="direct"`, where the nodes accept that many connections.
    """

    code = "PGF-F291"


class NoPooler(Refused):
    """`through="pooler"` was asked for, and the fleet has no pooler: its servers are given by DSNs, or it was applied before
    poolers were.

    Connect with `through="direct"`, or give a DSN that leads to a pooler of your own.
    """

    code = "PGF-F290"
