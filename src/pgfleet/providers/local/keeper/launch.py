"""Starting a unit: the command around its command, and the lock that no two keepers can hold for one unit."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

from pgfleet.errors import NamespacesUnavailable
from pgfleet.providers.local.units import Unit
from pgfleet.runtime.process import children, is_namespace_init, last_lines

#: By these a process is recognised as a unit (FOLDER:NAME), and told with which configuration it was started.
UNIT, DIGEST = "PGFLEET_UNIT", "PGFLEET_DIGEST"

#: A log is put aside (one generation) when its unit starts and it is larger than this many bytes.
_LONG_LOG = 20_000_000

#: Seconds for a namespace to be made: a few forks and two mounts, some 10 ms.
_NAMESPACE_DEADLINE = 5.0


class LockHeld(Exception):
    """A process of this unit still lives (or is just being ended by the kernel): look for it again."""


class LaunchFailed(Exception):
    """It ended before it was what it shall be. The message says how."""


def _program(name: str) -> str:
    return shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin") or name


def _as_user(unit: Unit) -> list[str]:
    if unit.user is None:
        return []
    entry = pwd.getpwnam(unit.user)
    if entry.pw_uid == os.geteuid():
        return []
    # setpriv execs, so the process that we hold stays the one that we started (runuser forks).
    return [_program("setpriv"), "--reuid", str(entry.pw_uid), "--regid", str(entry.pw_gid), "--init-groups", "--"]


def command(unit: Unit) -> list[str]:
    """The whole command line.

    A node's first process becomes pid 1 of its own pid namespace: when it ends, by whatever means, the kernel ends all
    others in there, PostgreSQL too, although that left its process group and session. The ipc namespace and a
    private /dev/shm end with it: nothing is left behind by a kill. It is not tied to its parents (no --kill-child): the
    keeper may die, its successor adopts the node, and nothing was interrupted.
    """
    # A limit above the hard one is what an ordinary user may not ask for: then as many as there may be.
    limit = 'ulimit -n "$0" 2>/dev/null || ulimit -n "$(ulimit -H -n)"; exec "$@"'
    if not unit.isolate:
        return ["/bin/sh", "-c", limit, str(unit.nofile), *_as_user(unit), *unit.argv]
    new = ["--pid", "--fork", "--mount", "--mount-proc", "--ipc"]
    drop: list[str] = []
    if os.geteuid() != 0:
        # A user namespace gives the right to make the others; the mounts below use it, then it is dropped.
        new = ["--user", "--map-current-user", "--keep-caps", *new]
        drop = [_program("setpriv"), "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--"]
    mount = f"{_program('mount')} -t tmpfs -o mode=1777,nosuid,nodev,noexec,size=25% pgfleet /dev/shm || exit 125; "
    inside = ["/bin/sh", "-c", mount + limit, str(unit.nofile), *drop, *_as_user(unit), *unit.argv]
    return [_program("unshare"), *new, "--", *inside]


def check_namespaces() -> None:
    """Whether this user may make the namespaces of a node.

    :raises NamespacesUnavailable: with what the kernel said.
    """
    probe = Unit("probe", ("/bin/true",), "/", {}, os.devnull, isolate=True)
    try:
        tried = subprocess.run(command(probe), capture_output=True, text=True, timeout=10, check=False, env={})
        said = tried.stderr.strip() if tried.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    if said:
        raise NamespacesUnavailable(
            "this user may not make pid, mount and ipc namespaces, which the nodes of a fleet live in",
            seen=said.splitlines()[-3:],
            hint="run as root, or see sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns",
        )


class Launcher:
    """Starts units of one fleet and reaps those of its children that have ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._locks = folder / "run" / "locks"
        self._locks.mkdir(parents=True, exist_ok=True)
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    async def start(self, unit: Unit) -> int:
        """Start it; returns the pid of its first process (in this pid namespace).

        :raises LockHeld: it lives.
        :raises LaunchFailed: it did not come to life.
        """
        child = self._spawn(unit)
        if not unit.isolate:
            return child.pid
        pause = 0.002
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_NAMESPACE_DEADLINE):
                while child.poll() is None:
                    for pid in children(child.pid):
                        if is_namespace_init(pid):
                            return pid
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, 0.05)
        how = f"ended with {child.returncode}" if child.returncode is not None else "did not make its namespace"
        if child.returncode is None:
            for pid in (*children(child.pid), child.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        raise LaunchFailed(" | ".join([how, *last_lines(Path(unit.log), 2)]))

    def reap(self) -> dict[int, int]:
        """Exit statuses of children that have ended since, by pid; negative: by that signal."""
        ended = {pid: child.returncode for pid, child in self._children.items() if child.poll() is not None}
        for pid in ended:
            del self._children[pid]
        return ended

    def parent_of(self, pid: int) -> int:
        """The child of ours that tells the exit status of ``pid``: itself, or the unshare around it."""
        return pid if pid in self._children else next((c for c in self._children if pid in children(c)), 0)

    def _spawn(self, unit: Unit) -> subprocess.Popen[bytes]:
        lock = os.open(self._locks / f"{unit.stem}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # The child inherits the lock, and whatever it becomes keeps it: it is free when the unit has ended and
            # not before. The unshare around a node holds it until the namespace is empty. Ours is closed below.
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockHeld(unit.name) from None
            log = _open_log(Path(unit.log))
            env = {**unit.env, UNIT: f"{self.folder}:{unit.name}", DIGEST: unit.digest}
            try:
                child = subprocess.Popen(
                    command(unit), cwd=unit.cwd, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True, pass_fds=(lock,), umask=0o077,
                )  # fmt: skip
            finally:
                os.close(log)
        except (OSError, KeyError) as error:
            raise LaunchFailed(str(error)) from error
        finally:
            os.close(lock)
        self._children[child.pid] = child
        return child


def _open_log(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _LONG_LOG:
            path.replace(path.with_name(path.name + ".1"))
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    os.fchmod(log, 0o640)
    return log
