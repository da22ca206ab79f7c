"""Of PostgreSQL that pgfleet did not start, and of its data source names."""

from __future__ import annotations

from pgfleet.errors.tree import Refused, StepFailed, Unreachable


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


class ProviderCannot(Refused):
    """The command needs something that the fleet's provider has no means for.

    Servers that exist already (provider `existing`) are promoted, restarted and configured by whoever runs them; pgfleet
    asks them who they are and follows.
    """

    code = "PGF-F233"


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
