"""Every diagnostic of the file: its code, what it says, why it is one, and what to do. The pages under docs/errors are
made from this table; a code that was given once is never given to something else.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """One kind of mistake."""

    code: str
    title: str
    cause: str
    remedy: str


CODES: dict[str, Code] = {}


def _code(number: int, title: str, cause: str, remedy: str) -> str:
    code = f"PGF-S{number:03}"
    if code in CODES:
        raise AssertionError(f"{code} is given twice")
    CODES[code] = Code(code, title, cause, remedy)
    return code


# ── the text
SYNTAX = _code(
    1,
    "The file is not YAML",
    "A bracket or a quote that is not closed, a tab in the indentation, a `: ` inside a text without quotes. "
    "Nothing after this place could be read, so other mistakes may follow once it is mended.",
    "Look at the line and the one above it. Quote texts that hold `: ` or begin with a sign; indent with spaces.",
)
DUPLICATE_KEY = _code(
    2,
    "A key is said twice",
    "YAML readers keep the last of two equal keys without a word: half of what was written would count for nothing.",
    "Keep one of them, or join what both say.",
)
ALIAS = _code(
    3,
    "Anchors, aliases and tags are not used",
    "They make one place of the file mean another, so that no message could say where a value came from, and a "
    "file of ten lines can mean a million.",
    "Say what many shards share once in `groups:` and let the shards name the group.",
)
TOO_LARGE = _code(
    4,
    "The file is too large or too deep",
    "A fleet of hundreds of shards takes some 50 kB and eight levels.",
    "Check that this is the file that was meant.",
)
NOT_A_MAPPING = _code(
    5,
    "The file holds no fleet",
    "It is empty, or something else than a mapping of keys to values.",
    "`pgfleet init` writes a file to start from.",
)
ENCODING = _code(
    6,
    "The file is not text",
    "It holds bytes that are not UTF-8: it was saved in another encoding, or it is not a text file at all.",
    "Save it as UTF-8, or convert it as the hint shows.",
)

# ── one value at a time
UNKNOWN_KEY = _code(
    10,
    "A key that nothing reads",
    "Mostly a slip of the finger. It is not passed over: a promise under a misspelt key would be no promise.",
    "The hint names the nearest key that is known there; docs/reference/fleet-file.md lists all of them.",
)
MISSING_KEY = _code(
    11,
    "A key is missing",
    "There is no default that would be right.",
    "Add it as the hint shows.",
)
VALUE = _code(
    12,
    "A value of the wrong kind or size",
    "A number where a list belongs, a text where a number belongs, a number out of its range.",
    'The message says what is expected. Remember that `1` is a number and `"1"` a text.',
)
DURATION = _code(
    13,
    "Not a duration",
    "Durations have a number and a unit: `50 ms`, `1 s`, `5 min`, `2 h`, `30 d`. A number alone is refused "
    "because files meant in seconds have been read in milliseconds before; only `0` needs no unit.",
    "Add the unit.",
)
NAME = _code(
    14,
    "Not a name",
    "Names of fleets, regions, groups and shards become folders, Patroni scopes, etcd keys and host names: "
    "lower-case letters, digits and inner hyphens, a letter first, at most 40 characters. Tables, columns and "
    "databases are identifiers that PostgreSQL needs no quotes for: lower-case letters, digits and underscores, "
    "at most 63.",
    "Use the spelling that the hint shows, or another.",
)
KEY_VALUE = _code(
    15,
    "A key's value that YAML reads as something else",
    "`true` is a boolean and `1.10` the number 1.1; as keys of a table they would be other texts than those that were written.",
    "Put it in quotes.",
)

# ── names that refer to something
UNKNOWN_REGION = _code(
    20,
    "A region that is not declared",
    "Voters, readers, homes and residencies name regions of `regions:`.",
    "Declare the region, or use the nearest name, which the hint shows.",
)
UNKNOWN_GROUP = _code(
    21,
    "A group that is not declared",
    "A shard's `group` names one of `groups:`.",
    "Declare the group, or use the nearest name, which the hint shows.",
)
UNKNOWN_SHARD = _code(
    22,
    "A shard that is not declared",
    "`place`, `elsewhere`, `over` and lookups name shards of `shards:`.",
    "Declare the shard, or use the nearest name, which the hint shows.",
)
UNKNOWN_TABLE = _code(
    23,
    "A table that is not declared",
    "`with:` names a table of `tables:` that has a placement.",
    "Declare the table, or use the nearest name, which the hint shows.",
)
RESERVED_NAME = _code(
    24,
    "A reserved name",
    "`home` stands for a shard's own home region in `voters` and `readers`, so no region may be called so. The "
    "databases `postgres`, `template0` and `template1` belong to PostgreSQL.",
    "Give it another name.",
)
PROVIDER = _code(
    25,
    "A provider that is not there",
    "Providers are the places where shards live. This version knows `local` (processes on this machine) and "
    "`existing` (shards that are given by DSNs).",
    "Use one of both.",
)
TOO_LITTLE = _code(
    26,
    "Something is declared without anything in it",
    "A fleet needs a region and a shard; a shard needs a voter.",
    "Declare one as the hint shows.",
)

# ── shapes of shards
HOME = _code(
    30,
    "No home, or one without a voter",
    "A shard's home is the region where its primary belongs. With more than one region it must be said, and a "
    "voter must stand there.",
    "Say `home:` on the shard or on its group, and put a voter there.",
)
SYNC = _code(
    31,
    "More synchronous replicas than there are replicas that vote",
    "With `sync: s` a commit is acknowledged when s voting replicas have it. One of the voters is the primary, "
    "so s is at most one less than the voters; a larger s would stop every write.",
    "Lower `sync`, or add voters.",
)
ASYNCHRONOUS = _code(
    32,
    "Asynchronous replication that nobody asked for",
    "With `sync: 0` a commit may exist on the primary alone, and is lost with it: measured, 500 to 750 "
    "acknowledged rows per client in a partition. The promises say that nothing is lost.",
    "Say `sync: 1` or more, or promise less aloud: `promises: {crash: {rto: 1 s, rpo: 5 s}, silent: {rto: 25 s, rpo: 5 s}}`.",
)
SAID_TWICE = _code(
    33,
    "The home region is counted twice",
    "`home` in voters or readers is the shard's home region, which is also there under its own name.",
    "Use one of both names.",
)
MANY_NODES = _code(
    34,
    "Many nodes (a warning)",
    "A node on provider local takes about 50 MB of memory, 110 MB of disk and 0.7 % of a core when idle; every "
    "voter and reader is also a connection that its primary feeds.",
    "Nothing, if the machine is large enough.",
)
RESIDENCY = _code(
    35,
    "A residency that a copy breaks",
    "`residency` says in which regions rows, copies and archives of a shard may be. A voter, a reader or the "
    "home stands elsewhere.",
    "Move the voter or reader into the residency, or widen the residency.",
)
UNTESTED = _code(
    36,
    "A PostgreSQL that is not tested (a warning)",
    "PostgreSQL 15 is what the tests run on. Newer majors are accepted where their binaries are.",
    "Nothing, if that is known.",
)

# ── promises
RTO_FLOOR = _code(
    40,
    "A recovery time below what is possible",
    "A dead process is confirmed and replaced in 0.3 to 0.5 s. A machine or a region that fell silent cannot be "
    "told from a slow one: its lease must run out first, and Patroni's `ttl` cannot be below 20 s, so about 21 "
    "s pass.",
    "Promise at least 500 ms for `crash` and 22 s for `silent` and `region`.",
)
NOBODY_LEFT = _code(
    41,
    "A promise, and nobody to keep it",
    "A shard with one voter has no replica that could be elected. Until the voter is back there is no shard.",
    "Add a voter, or say that nothing is promised: `promises: {crash: none, silent: none, region: none}`.",
)
REGION_LOSS = _code(
    42,
    "A region promise that the shape cannot keep",
    "When a region is lost with its voters, the others elect only if V - s + 1 voting replicas remain (V voting "
    "replicas, `sync: s`), that is if s is larger than the number of voting replicas that are lost with the "
    "primary. A shard whose voters or residency are in one region cannot survive it at all.",
    "Spread the voters over more regions or raise `sync`, as the hint says; or let this shard say `promises: {region: none}`.",
)
ETCD_REGIONS = _code(
    43,
    "A region promise with fewer than three regions",
    "Elections go through etcd, whose three members need a majority: with members in two regions, one of both "
    "takes the majority along.",
    "Declare a third region (it needs no shard), or promise nothing: `promises: {region: none}`.",
)
NOT_BOUNDED = _code(
    44,
    "A loss that has no bound (a warning)",
    "With `sync: 0` what is lost is what the replicas had not received yet. Patroni only elects a replica that "
    "is at most 1 MB of WAL behind, which is an amount and not a time.",
    "Say `sync: 1` where the promise matters.",
)
AVAILABILITY = _code(
    45,
    "An availability that a promised recovery breaks (a warning)",
    "One silent machine a month, recovered as slowly as promised, already takes more than the share of the "
    "month that may be lost.",
    "Promise a faster recovery or less availability.",
)
LEFT_ALONE = _code(
    46,
    "A crash after which nobody is left to confirm (a warning)",
    "Where `sync` is as many as there are voting replicas (two nodes and `sync: 1`), the one that takes over waits for "
    "confirmations that only the node that died could give, until that is back or given up: measured, writes stood still for "
    "3.4 to 3.7 s, and for 0.35 to 0.6 s where one voter more was left.",
    "Add a voter, lower `sync`, or promise what can be kept: `promises: {crash: {rto: 5 s, rpo: 0}}`.",
)

# ── tables
PLACED_TWICE = _code(
    50,
    "A key is placed twice",
    "One key of a table lives on one shard (or is spread over several by another column).",
    "Keep one of both places.",
)
NO_PLACE = _code(
    51,
    "A table without a place",
    "With more than one shard, `place`, `elsewhere` or `with` says where a table's rows live.",
    "Say `elsewhere: {hash: 64, over: [...]}` to spread every key, or list the keys under `place`.",
)
WITH = _code(
    52,
    "A table that follows badly",
    "`with:` makes a table live where another one does, key by key: it has no placement of its own, and the "
    "chain of tables must end at one that has.",
    "Drop `place` and `elsewhere`, or drop `with`.",
)
SPREAD = _code(
    53,
    "A spread that does not spread",
    "`over` holds one shard twice, has too few shards, has more shards than buckets, or leaves out the shard "
    "that the key is listed under.",
    "Mend `over` or the number of buckets. The number of buckets is kept for good: changing it moves most rows.",
)
EMPTY_SHARD = _code(
    54,
    "A shard that no table uses (a warning)",
    "Every table places its keys on other shards, so this shard would cost its nodes and hold nothing.",
    "Place keys on it, or remove it.",
)
LOOKUP = _code(
    55,
    "A lookup that cannot work",
    "A lookup finds the shard of a row by another column than the key, by means of a table of its own that is "
    "hashed by that column. It needs columns other than the key alone, and a shard to live on which residency "
    "does not forbid.",
    "Name other columns, or say `{columns: [...], over: [...]}`.",
)
PARTITION = _code(
    56,
    "A partition that does not add up",
    "`keep` is shorter than one partition, or `then` is said without `keep`.",
    "Mend the period.",
)

# ── settings and pools
FORBIDDEN_SETTING = _code(
    60,
    "A PostgreSQL parameter that pgfleet keeps",
    "Some settings lose acknowledged data (`fsync = off`), some would take the engines' ground away "
    "(`wal_level`), some are said elsewhere in the file (`max_connections`). Each has its reason in "
    "spec/forced.py, and the message gives it.",
    "Remove it from `settings`.",
)
SETTING_NAME = _code(
    61,
    "Not the name of a PostgreSQL parameter",
    "Parameters are lower-case letters, digits and underscores; those of an extension have the extension's name "
    "and a dot before.",
    "Mend the name.",
)
CONNECTIONS = _code(
    62,
    "More connections than a node accepts",
    "A primary is reached by every region's pooler (`default_pool_size` each) or by every process of the "
    "application (`per_process` each), and some of `max_connections` are kept for replication, Patroni and "
    "people.",
    "Raise `max_connections`, lower the pools, or use `through: pooler`.",
)
POOL_SIZE = _code(
    63,
    "A pool larger than its number of clients (a warning)",
    "Server connections that no client will use.",
    "Lower `default_pool_size` or raise `max_client_conn`.",
)

# ── shards that exist already
EXISTING = _code(
    70,
    "A shard given by DSNs beside a declared shape, or by neither",
    "A shard of provider `existing` is what its `primary` and `replicas` say, each server once: voters, readers, sync "
    "and settings are not pgfleet's there; and a shard of another provider has no DSNs.",
    "Remove one of both, or say `primary`.",
)
SECRET_IN_FILE = _code(
    71,
    "A password in the file",
    "The file is kept in version control and shown in messages. A password that was written into it should be "
    "changed on the server, too.",
    "Say `env:NAME` and put the whole DSN into that environment variable, or `file:PATH` and into a file that only you may "
    "read. A DSN without a password may stand in the file: libpq's own ways (`PGPASSWORD`, `~/.pgpass`) are used then.",
)
ONE_PROVIDER = _code(
    72,
    "Regions of different providers",
    "A shard's servers are made by pgfleet or they are given; a shard that is partly both has nobody who elects over "
    "all of it. So far a whole fleet is of one provider, because its map of keys is kept in one place: in etcd, or on "
    "the shards.",
    "Give all regions one provider, or make two fleets.",
)
TRAIT = _code(
    73,
    "Something that the provider has no means for",
    "PostgreSQL that exists already (provider `existing`) is run by somebody else: parameters, poolers, elections and the "
    "roles of regions are theirs. A line of the file that nobody obeys would be believed all the same.",
    "Remove it, and say it where those servers are run.",
)
DSN = _code(
    74,
    "Not a DSN",
    "A DSN names one server, and who connects to which database on it: `postgresql://USER@HOST:5432/DATABASE`, or "
    "`host=… port=… user=… dbname=…`, with `sslmode` and `sslrootcert` as libpq has them. Parameters that change what a "
    "session means (`options`) and those that pgfleet cannot honour (`hostaddr`, `sslcert`) are refused; `prefer` and "
    "`allow` too, since they let whoever is between decide. Unsaid, the server has to show a certificate that the "
    "system's authorities signed for its name, except on loopback.",
    "Mend it as the message says, or say `env:NAME` and put the DSN into that environment variable.",
)
