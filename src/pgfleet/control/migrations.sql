-- What was applied to this shard. A file's row is written in the file's own transaction: both are there, or neither is.
create schema if not exists pgfleet;

create table if not exists pgfleet.migrations (
    number     integer primary key,
    name       text not null,
    sha256     text not null,
    started_at timestamptz not null default clock_timestamp(),
    applied_at timestamptz,       -- null: a file without transaction that was begun and not ended
    applied_by text not null,     -- who ran pgfleet, as user@host
    took       double precision   -- seconds
);
