"""Of who owns a row: the map of keys, its changes, and claims to values that are unique across the fleet."""

from __future__ import annotations

from pgfleet.errors.tree import Refused, StepFailed, Unreachable


class PlacementError(Refused):
    """The placement has no answer for this table and key, and none is made up.

    The table is not declared in the file; or the key is not listed and `elsewhere` is `refuse`; or the key is spread
    over several shards and the second column's value was not given; or the value is no key (keys are text, whole
    numbers and UUIDs). Give another key, or mend the file and apply it.
    """

    code = "PGF-F220"


class PlacementLosesRows(Refused):
    """The file places keys on another shard than before, and rows of them exist where they were: they would not be
    found any more. Nothing was changed.

    Put the placement back, or move the rows first.
    """

    code = "PGF-F105"


class LookupLosesEntries(Refused):
    """The file changes where the entries of a lookup are looked for (its `over`, `buckets` or columns), or leaves the lookup out,
    and there are entries: values would be found no more, and could be claimed again. Nothing was changed.

    Say it as it is in force; the hint has the text. A shard that is added needs no change of a lookup: it stays where it is.
    To give a lookup up, delete its entries from `pgfleet.lookup` on every shard while nobody writes, then apply.
    """

    code = "PGF-F109"


class RowsUnseen(Refused):
    """A changed placement must be compared with the rows that exist, and row-level security hides rows of a table from its
    owner (FORCE ROW LEVEL SECURITY), or the owner may not read it. Nothing was changed.

    Lift it while the change is applied: `alter table … no force row level security`, and force it again afterwards.
    """

    code = "PGF-F110"


class ShardUnasked(Unreachable):
    """A changed placement must be compared with the rows that exist, and told to every shard, and a shard does not answer.

    Nothing was changed there. Bring the shard back (`pgfleet status`), then apply again.
    """

    code = "PGF-U205"


class PlacementMoved(Unreachable):
    """The key was moved to another shard (or the map changed) while a `write` block was under way; nothing of it was written.

    The client has the new map already: run the block again. `execute` and `transact` do so by themselves, once.
    """

    code = "PGF-U134"


class PlacementSuperseded(Refused):
    """A shard already has a map of keys with a higher epoch, or another map of the same one: somebody else changed it after
    this change was planned. Nothing was changed there.

    `pgfleet plan` looks again, and gives the file's map an epoch above every one that is known.
    """

    code = "PGF-F270"


class NotOwned(Refused):
    """The shard refused a statement because it does not own the key of a row that the statement writes, and the map has not
    changed: the `key` of the call and the key in the SQL are not the same.

    Give the call the key that the statement's rows have; rows of several keys take a call each.
    """

    code = "PGF-F205"


class CrossShardWrite(Refused):
    """One transaction was to write to two shards: its COMMIT would not be atomic, and half of it could be lost.

    Commit the one before the other begins, and let the second be safe to repeat.
    """

    code = "PGF-F208"


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


class TakenAlready(Refused):
    """The database is another shard already, of this fleet or of another: its schema `pgfleet` says which.

    Two shards in one database would each answer for the other's keys. Give each its own database, or, where the other fleet
    is gone, `drop schema pgfleet cascade` there.
    """

    code = "PGF-F234"


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
