-- Lookups: where a row is found, and unique, by other columns than its key. One entry for each value, on the shard that the
-- value hashes to; `value` is the columns' texts joined by U+001F.
create table if not exists pgfleet.lookup (
    table_name   text        not null,
    lookup       text        not null,
    value        text        not null,
    key          text        not null,                           -- of the row that has the value, and the second column's
    second       text,                                           -- value where the key is spread
    owner        text        not null,                           -- the shard whose pgfleet.outcome knows the reservation
    reservation  uuid        not null,                           -- the write that claimed it
    confirmed    boolean     not null default false,             -- that write is known to be committed
    releasing    uuid,                                           -- a write that gives it up, and is not known to be committed
    releasing_on text,                                           -- the shard whose pgfleet.outcome knows that one
    at           timestamptz not null default clock_timestamp(), -- when reservation or releasing was set

    primary key (table_name, lookup, value),
    check (confirmed or releasing is null or releasing = reservation), -- a value that had no entry, while it is given up
    check ((releasing is null) = (releasing_on is null))
);

create index if not exists lookup_undecided on pgfleet.lookup (at) where not confirmed or releasing is not null;

grant select, insert, update, delete on pgfleet.lookup to :"app";

-- The values are people's (e-mail addresses): statistics need none of them.
revoke all on pgfleet.lookup from :"monitor";
