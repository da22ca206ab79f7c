-- What was applied to this shard. A file's row is written in the file's own transaction: both are there, or neither is.
do $$
begin
    if to_regnamespace('pgfleet') is null then  -- `if not exists` asks for the right to create one even where it is there
        create schema pgfleet;
    end if;
end
$$;

create table if not exists pgfleet.migrations (
    number     integer primary key,
    name       text not null,
    sha256     text not null,
    started_at timestamptz not null default clock_timestamp(),
    applied_at timestamptz,       -- null: a file without transaction that was begun and not ended
    applied_by text not null,     -- who ran pgfleet, as user@host
    took       double precision   -- seconds
);
