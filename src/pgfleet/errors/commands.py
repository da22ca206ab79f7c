"""Of the command line, its files, and the state of a fleet on this host."""

from __future__ import annotations

from pgfleet.errors.tree import PgfleetError, Refused, Unproven, Unreachable


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


class NoSuchName(Refused):
    """The command names a shard or node that the file does not declare. Those that it declares stand under `seen`."""

    code = "PGF-F106"


class WouldOverwrite(Refused):
    """A file is there already, and it may be the only copy of what somebody decided.

    Name another file, or remove this one first.
    """

    code = "PGF-F101"


class AlreadyThere(Refused):
    """The demonstration starts from nothing, and in the folder that was named there is a fleet of its name already.

    Destroy that one, or name another folder.
    """

    code = "PGF-F108"


class PlanOutdated(Refused):
    """`apply PLAN` performs that plan or nothing, and looking now gives another one: the file or the fleet has changed since.

    Make the plan again, read it, and apply that.
    """

    code = "PGF-F107"
