"""Of the engines: what is not installed, does not answer, or says no."""

from __future__ import annotations

from pgfleet.errors.tree import Refused, StepFailed, Unreachable


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


class EnginesMissing(Unreachable):
    """The engines' own programs were not found on this host: Patroni's Python, or one of Debian's packages.

    ``script/bootstrap`` installs what is missing and says where. Patroni is looked for in ``$PGFLEET_ENGINES``, then in
    root's place, then in the user's, in a folder named by the hash of ``engines.lock``: a new version of pgfleet may
    want a new one.
    """

    code = "PGF-U201"


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


class NotSettled(StepFailed):
    """What was started did not become what it shall be within its time. It may still: nothing was taken back.

    What was seen last stands under `seen`; `pgfleet status` looks again, the logs are `logs/` and
    `nodes/SHARD/MEMBER/log/patroni.log` in the state folder, and `pgfleet apply` goes on where this stopped.
    """

    code = "PGF-E202"


class NoCandidate(Refused):
    """No replica can take over without losing something: none takes part in synchronous replication and streams
    right now, or the one that was named does not.

    Wait until `pgfleet status` shows a streaming voter, or name one of the candidates under `seen`.
    """

    code = "PGF-F102"


class StillDifferent(StepFailed):
    """Every step ended well, and yet looking again shows that something is not as the file wants it.

    Run `pgfleet plan` for what differs now; the journal (`pgfleet log`) has what was done.
    """

    code = "PGF-E203"
