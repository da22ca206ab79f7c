"""The engines of this host: where their programs are, and whom they run as."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pgfleet.engines.patroni_home import patroni_home
from pgfleet.engines.pgbouncer import version_of
from pgfleet.engines.postgres import PostgresBinaries, find_postgres
from pgfleet.engines.programs import find_program
from pgfleet.errors import EnginesMissing
from pgfleet.providers.local.credentials import EngineUser, engine_user


@dataclass(frozen=True, slots=True)
class Engines:
    """Absolute paths of programs. :param pgbouncer_version: major and minor."""

    postgres: PostgresBinaries
    patroni: str
    etcd: str
    pgbouncer: str
    haproxy: str
    user: EngineUser
    pgbouncer_version: tuple[int, int] = (0, 0)


def find_engines(major: int) -> Engines:
    """What runs a fleet of PostgreSQL ``major`` here.

    :raises PostgresMissing: not that major.
    :raises EnginesMissing: another program, or the user that root's engines run as.
    """
    try:
        user = engine_user(os.geteuid())
    except KeyError:
        raise EnginesMissing("there is no user postgres for the engines to run as", hint="script/bootstrap") from None
    pgbouncer = find_program("pgbouncer")
    return Engines(
        postgres=find_postgres(major),
        patroni=str(patroni_home() / "bin" / "patroni"),
        etcd=find_program("etcd"),
        pgbouncer=pgbouncer,
        haproxy=find_program("haproxy"),
        user=user,
        pgbouncer_version=version_of(pgbouncer),
    )
